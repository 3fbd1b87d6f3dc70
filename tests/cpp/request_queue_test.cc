#include "scheduler/request_queue.h"

#include <future>

#include "check.h"
#include "fake_backend.h"

namespace snapllm {
namespace {

using testing::make_sequence;

struct Taken {
  std::deque<std::unique_ptr<Sequence>> arrivals;
  std::vector<uint64_t> cancels;
};

Taken take(RequestQueue& queue) {
  Taken taken;
  queue.take(taken.arrivals, taken.cancels);
  return taken;
}

Status push(RequestQueue& queue, uint64_t id) {
  return queue.push(make_sequence(id, "p", 1, std::make_shared<OutputQueue>()));
}

TEST(request_queue, arrivals_are_taken_once_and_in_order) {
  RequestQueue queue(8);
  CHECK(!queue.has_arrivals());
  CHECK(push(queue, 5).ok());
  CHECK(push(queue, 3).ok());
  CHECK(queue.has_arrivals());
  const Taken taken = take(queue);
  REQUIRE(taken.arrivals.size() == 2);
  CHECK_EQ(taken.arrivals[0]->request_id(), 5);
  CHECK_EQ(taken.arrivals[1]->request_id(), 3);
  CHECK(!queue.has_arrivals());
  CHECK(take(queue).arrivals.empty());
}

TEST(request_queue, full_until_requests_are_admitted_or_end) {
  RequestQueue queue(2);
  CHECK(push(queue, 1).ok());
  CHECK(push(queue, 2).ok());
  take(queue);  // taken is not yet admitted
  CHECK_EQ(push(queue, 3).code(), StatusCode::kQueueFull);
  CHECK_EQ(queue.num_waiting(), 2);
  queue.note_admitted(1);
  CHECK(push(queue, 4).ok());
  CHECK_EQ(push(queue, 5).code(), StatusCode::kQueueFull);
  queue.note_finished(2, /*was_waiting=*/true);
  CHECK(push(queue, 6).ok());
  queue.note_finished(1, /*was_waiting=*/false);
  CHECK_EQ(push(queue, 7).code(), StatusCode::kQueueFull);
}

TEST(request_queue, closed_refuses_requests_but_takes_cancellations) {
  RequestQueue queue(2);
  CHECK(push(queue, 1).ok());
  queue.close();
  CHECK_EQ(push(queue, 2).code(), StatusCode::kClosed);
  CHECK(queue.cancel(1));
}

TEST(request_queue, only_a_live_request_can_be_cancelled) {
  RequestQueue queue(2);
  CHECK(!queue.cancel(1));
  CHECK(push(queue, 1).ok());
  CHECK(queue.cancel(1));
  CHECK_EQ(take(queue).cancels, std::vector<uint64_t>{1});
  CHECK(take(queue).cancels.empty());
  CHECK(queue.cancel(1));
  CHECK(queue.has_arrivals());
  queue.note_finished(1, /*was_waiting=*/true);
  CHECK(!queue.cancel(1));
}

TEST(request_queue, refused_request_is_not_live) {
  RequestQueue queue(0);
  CHECK_EQ(push(queue, 1).code(), StatusCode::kQueueFull);
  CHECK(!queue.cancel(1));
  queue.wait_idle(testing::far_deadline());
}

TEST(request_queue, wait_idle_keeps_to_its_deadline) {
  RequestQueue queue(1);
  CHECK(push(queue, 1).ok());
  queue.wait_idle(std::chrono::steady_clock::now() + std::chrono::milliseconds(5));
  CHECK(queue.cancel(1));  // still alive
}

TEST(request_queue, wait_idle_ends_with_the_last_request) {
  RequestQueue queue(2);
  CHECK(push(queue, 1).ok());
  CHECK(push(queue, 2).ok());
  const auto deadline = testing::far_deadline();
  auto waiter = std::async(std::launch::async, [&] {
    queue.wait_idle(deadline);
    return std::chrono::steady_clock::now() < deadline;
  });
  queue.note_finished(1, /*was_waiting=*/true);
  CHECK(waiter.wait_for(std::chrono::milliseconds(2)) == std::future_status::timeout);
  queue.note_finished(2, /*was_waiting=*/true);
  CHECK(waiter.get());
}

}  // namespace
}  // namespace snapllm
