// Threads of a test as the kernels take them.
#pragma once

#include <atomic>
#include <barrier>

#include "kernels/team.h"

namespace snapllm {

class TestTeam {
 public:
  explicit TestTeam(int num_threads) : num_threads_(num_threads), barrier_(num_threads) {}

  Team of_thread(int thread) {
    Team team;
    team.thread = thread;
    team.num_threads = num_threads_;
    team.context = this;
    team.wait_for_all = [](void* at) { of(at).barrier_.arrive_and_wait(); };
    team.hand_out = [](void* at, int first) { of(at).next_ = first; };
    team.take = [](void* at) { return of(at).next_++; };
    return team;
  }

 private:
  static TestTeam& of(void* context) { return *static_cast<TestTeam*>(context); }

  const int num_threads_;
  std::barrier<> barrier_;
  std::atomic<int> next_ = 0;
};

}  // namespace snapllm
