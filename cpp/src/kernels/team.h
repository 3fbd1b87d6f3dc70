// The threads that compute an operation together, each of which makes the same call, and how
// they share out its work.
#pragma once

#include <algorithm>
#include <cstdint>

namespace snapllm {

class Helpers;

struct Team {
  int thread = 0;  // the caller's, of num_threads
  int num_threads = 1;
  void* context = nullptr;
  // Returns once all threads have called it.
  void (*wait_for_all)(void* context) = nullptr;
  // From the next wait_for_all on, take(context) returns `first` and the numbers after it, each
  // once. For one thread to call, while none takes any.
  void (*hand_out)(void* context, int first) = nullptr;
  int (*take)(void* context) = nullptr;
  Helpers* helpers = nullptr;  // of a team of one thread
};

// How many shares work is cut into that is worth `cost` multiply-adds. A thread that is done takes
// the next one where there are more shares than threads: cores differ, by what they are and by what
// else runs on them, and the slowest would keep all others waiting.
inline int num_shares(double cost, int num_threads) {
  constexpr int kSharesPerThread = 8;
  constexpr double kMinCost = 1 << 20;  // next to which taking a share is nothing
  if (num_threads == 1 || cost < 2 * kMinCost * num_threads) return num_threads;
  return static_cast<int>(std::min(cost / kMinCost, 1.0 * kSharesPerThread * num_threads));
}

// Once each thread is ready, so that none begins with `take_shares` before.
inline void begin_taking(const Team& team) {
  if (team.thread == 0) team.hand_out(team.context, team.num_threads);
  team.wait_for_all(team.context);
}

// Calls work(share) for the shares that this thread takes: the first is its own.
template <typename Work>
void take_shares(const Team& team, int shares, Work&& work) {
  for (int share = team.thread; share < shares; share = team.take(team.context)) work(share);
}

}  // namespace snapllm
