#include "snapllm/output_queue.h"

#include <poll.h>

#include <thread>

#include "check.h"

namespace snapllm {
namespace {

bool is_readable(const OutputQueue& queue, int timeout_ms = 0) {
  pollfd entry{queue.fd(), POLLIN, 0};
  return poll(&entry, 1, timeout_ms) == 1 && (entry.revents & POLLIN) != 0;
}

std::vector<RequestOutput> outputs_of(std::initializer_list<uint64_t> ids) {
  std::vector<RequestOutput> outputs;
  for (const uint64_t id : ids) outputs.emplace_back().request_id = id;
  return outputs;
}

std::vector<uint64_t> ids_of(const std::vector<RequestOutput>& outputs) {
  std::vector<uint64_t> ids;
  for (const RequestOutput& output : outputs) ids.push_back(output.request_id);
  return ids;
}

TEST(output_queue, is_readable_only_while_outputs_wait) {
  OutputQueue queue;
  CHECK(!is_readable(queue));
  queue.push(outputs_of({1}));
  CHECK(is_readable(queue));
  queue.drain();
  CHECK(!is_readable(queue));
  queue.push(outputs_of({2}));
  CHECK(is_readable(queue));
}

TEST(output_queue, drain_takes_everything_in_order) {
  OutputQueue queue;
  queue.push(outputs_of({1, 2}));
  queue.push(outputs_of({3}));
  CHECK_EQ(ids_of(queue.drain()), (std::vector<uint64_t>{1, 2, 3}));
  CHECK(queue.drain().empty());
}

TEST(output_queue, what_goes_on_waits_for_the_end_of_a_rest) {
  OutputQueue queue;
  queue.push(outputs_of({1}));
  queue.drain();
  queue.rest();
  queue.push(outputs_of({1, 2}));
  queue.push(outputs_of({1}));
  CHECK(!is_readable(queue));
  CHECK(queue.drain().empty());
  queue.resume();
  CHECK(is_readable(queue));
  CHECK_EQ(ids_of(queue.drain()), (std::vector<uint64_t>{1, 2, 1}));
  queue.rest();
  queue.resume();
  CHECK(!is_readable(queue));
}

TEST(output_queue, an_answer_that_begins_or_ends_in_a_rest_waits_for_nothing) {
  OutputQueue queue;
  queue.rest();
  std::vector<RequestOutput> outputs = outputs_of({1, 2, 3, 1});
  outputs[1].tokens = {5};
  outputs[1].num_generated_tokens = 1;
  outputs[3].finish_reason = FinishReason::kStop;
  queue.push(std::move(outputs));
  CHECK(is_readable(queue));
  CHECK_EQ(ids_of(queue.drain()), (std::vector<uint64_t>{1, 2, 1}));
  CHECK(!is_readable(queue));
  queue.push(outputs_of({2}));
  CHECK(!is_readable(queue));
  queue.resume();
  CHECK_EQ(ids_of(queue.drain()), (std::vector<uint64_t>{3, 2}));
}

TEST(output_queue, empty_push_wakes_nobody) {
  OutputQueue queue;
  queue.push({});
  CHECK(!is_readable(queue));
}

TEST(output_queue, push_wakes_a_sleeping_reader) {
  OutputQueue queue;
  std::vector<uint64_t> read;
  std::thread reader([&] {
    if (is_readable(queue, 20'000)) read = ids_of(queue.drain());
  });
  queue.push(outputs_of({7}));
  reader.join();
  CHECK_EQ(read, std::vector<uint64_t>{7});
}

TEST(output_queue, no_output_is_lost_between_many_writers_and_a_reader) {
  constexpr uint64_t kWriters = 4;
  constexpr uint64_t kEach = 500;
  OutputQueue queue;
  std::vector<std::thread> writers;
  for (uint64_t w = 0; w < kWriters; ++w) {
    writers.emplace_back([&queue, w] {
      for (uint64_t i = 0; i < kEach; ++i) queue.push(outputs_of({w * kEach + i}));
    });
  }
  std::vector<uint64_t> next(kWriters, 0);
  uint64_t num_read = 0;
  // A wake-up that were lost would run into the timeout.
  while (num_read < kWriters * kEach && is_readable(queue, 20'000)) {
    for (const uint64_t id : ids_of(queue.drain())) {
      CHECK_EQ(id % kEach, next[id / kEach]++);
      ++num_read;
    }
  }
  for (std::thread& writer : writers) writer.join();
  CHECK_EQ(num_read, kWriters * kEach);
}

}  // namespace
}  // namespace snapllm
