// Whose turn it is: shares a device's time evenly among those that have work.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>

namespace snapllm {

// Not thread-safe. Everyone's time counts from the least that any of them had when it came, so
// that an idle one neither saves up time nor has to wait for those that worked meanwhile.
class FairTurns {
 public:
  using Id = const void*;

  // One of those that have work: who had the least time, and of equals who waits longest.
  // REQUIRES: `ready` is not empty
  Id next(std::span<const Id> ready);
  // Says how long its turn took.
  void charge(Id id, double ms);
  void forget(Id id) { shares_.erase(id); }

 private:
  struct Share {
    double used_ms = 0.0;
    uint64_t last_turn = 0;
  };
  std::unordered_map<Id, Share> shares_;
  double least_ms_ = 0.0;  // of those that had work
  uint64_t num_turns_ = 0;
};

}  // namespace snapllm
