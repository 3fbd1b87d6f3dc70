#include "kernels/helpers.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "check.h"

namespace snapllm {
namespace {

using namespace std::chrono_literals;

// What the shares of a run have in common; lives longer than the scope.
struct Room {
  explicit Room(int num_shares) : results(static_cast<size_t>(num_shares)) {}

  std::vector<int> results;
  const std::thread::id owner = std::this_thread::get_id();
  std::atomic<int> num_apart{0};       // shares that helpers computed
  std::atomic<int> num_not_held{0};    // that had been taken back by then
  std::atomic<bool> is_closed{false};  // helpers wait in here
};

// Each share's result is its number times `factor`.
struct Work {
  Room* room;
  int factor;
  std::chrono::microseconds own_time{0};
  bool waits = false;  // a helper computes until the room is open

  void compute(int share) const {
    CHECK(std::this_thread::get_id() == room->owner);
    std::this_thread::sleep_for(own_time);
    room->results[static_cast<size_t>(share)] += share * factor;
  }
  size_t apart_bytes(int) const { return sizeof(int); }
  void compute_apart(int share, std::byte* out, const Helpers::Claim& claim) const {
    CHECK(std::this_thread::get_id() != room->owner);
    CHECK_EQ(reinterpret_cast<uintptr_t>(out) % 64, 0u);
    while (waits && room->is_closed.load()) std::this_thread::yield();
    *reinterpret_cast<int*>(out) = share * factor;
    ++room->num_apart;
    if (!claim.holds()) ++room->num_not_held;
  }
  void put(int share, const std::byte* out) const {
    room->results[static_cast<size_t>(share)] += *reinterpret_cast<const int*>(out);
  }
};

void check_results(const Room& room, int factor) {
  for (size_t i = 0; i < room.results.size(); ++i) {
    CHECK_EQ(room.results[i], static_cast<int>(i) * factor);
  }
}

TEST(helpers, each_share_is_computed_once_whoever_does) {
  Helpers helpers(2);
  for (int i = 0; i < 3000; ++i) {
    Room room(1 + i % 40);
    const Helpers::Scope scope(helpers);
    helpers.run(Work{&room, i}, static_cast<int>(room.results.size()));
    check_results(room, i);
  }
}

TEST(helpers, they_take_shares_of_long_work) {
  Helpers helpers(2);
  Room room(40);
  const Helpers::Scope scope(helpers);
  helpers.run(Work{.room = &room, .factor = 3, .own_time = 2ms}, 40);
  check_results(room, 3);
  CHECK(room.num_apart.load() > 0);
}

TEST(helpers, one_that_has_lost_its_core_is_not_waited_for) {
  Helpers helpers(1);
  Room room(8);
  Room next(8);
  {
    const Helpers::Scope scope(helpers);
    room.is_closed = true;
    helpers.run(Work{.room = &room, .factor = 5, .own_time = 2ms, .waits = true}, 8);
    check_results(room, 5);
    CHECK_EQ(room.num_apart.load(), 0);
    // What it computes later is nobody's any more.
    helpers.run(Work{.room = &next, .factor = 7, .own_time = 1ms}, 8);
    check_results(next, 7);
    room.is_closed = false;
  }
  CHECK_EQ(room.num_apart.load(), room.num_not_held.load());
  check_results(room, 5);
}

TEST(helpers, at_the_end_of_a_scope_none_of_them_works_any_more) {
  Helpers helpers(1);
  for (int i = 0; i < 20; ++i) {
    Room room(4);
    room.is_closed = true;
    std::jthread opener;
    {
      const Helpers::Scope scope(helpers);
      helpers.run(Work{.room = &room, .factor = 5, .own_time = 1ms, .waits = true}, 4);
      opener = std::jthread([&] {
        std::this_thread::sleep_for(2ms);
        room.is_closed = false;
      });
    }
    const int num_apart = room.num_apart.load();
    CHECK(num_apart == 0 || !room.is_closed.load());
    std::this_thread::sleep_for(1ms);
    CHECK_EQ(room.num_apart.load(), num_apart);
  }
}

TEST(helpers, they_help_the_thread_of_the_scope_alone) {
  Helpers helpers(1);
  CHECK(Helpers::current() == nullptr);
  {
    const Helpers::Scope scope(helpers);
    CHECK(Helpers::current() == &helpers);
    std::jthread([] { CHECK(Helpers::current() == nullptr); });
  }
  CHECK(Helpers::current() == nullptr);
}

TEST(helpers, they_sleep_between_scopes_and_end_asleep) {
  for (int i = 0; i < 50; ++i) {
    Helpers helpers(2);
    if (i % 3 > 0) {
      Room room(6);
      const Helpers::Scope scope(helpers);
      helpers.run(Work{&room, i}, 6);
      check_results(room, i);
    }
    if (i % 5 == 0) std::this_thread::sleep_for(2ms);
  }
}

}  // namespace
}  // namespace snapllm
