#include "kernels/team.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "check.h"
#include "test_team.h"

namespace snapllm {
namespace {

TEST(team, little_work_has_a_share_for_each_thread) {
  CHECK_EQ(num_shares(0, 4), 4);
  CHECK_EQ(num_shares(1e6, 4), 4);
}

TEST(team, much_work_has_several_shares_for_each_thread_but_not_too_small_ones) {
  CHECK_EQ(num_shares(1e12, 4), 32);
  const int some = num_shares(12 << 20, 4);
  CHECK(some > 4);
  CHECK(some <= 12);
}

TEST(team, one_thread_takes_all_at_once) { CHECK_EQ(num_shares(1e12, 1), 1); }

TEST(team, a_slow_thread_takes_fewer_shares_and_each_is_taken_once) {
  using namespace std::chrono_literals;
  constexpr int kShares = 40;
  std::vector<std::atomic<int>> times(kShares);
  std::atomic<int> num_of_slow = 0;
  TestTeam together(2);
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < 2; ++thread) {
    threads.emplace_back([&, thread] {
      const Team team = together.of_thread(thread);
      begin_taking(team);
      take_shares(team, kShares, [&](int share) {
        ++times[static_cast<size_t>(share)];
        if (thread == 1) ++num_of_slow;
        std::this_thread::sleep_for(thread == 0 ? 1ms : 20ms);
      });
    });
  }
  threads.clear();
  for (const auto& count : times) CHECK_EQ(count.load(), 1);
  CHECK(num_of_slow > 0);
  CHECK(num_of_slow < kShares / 2);
}

}  // namespace
}  // namespace snapllm
