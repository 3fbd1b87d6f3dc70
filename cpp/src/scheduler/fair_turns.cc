#include "scheduler/fair_turns.h"

#include <algorithm>
#include <tuple>

namespace snapllm {
namespace {

// What a turn costs at least, so that one who has work but cannot do it passes the device on.
constexpr double kLeastMs = 0.05;

}  // namespace

FairTurns::Id FairTurns::next(std::span<const Id> ready) {
  Id best = nullptr;
  for (const Id id : ready) {
    Share& share = shares_[id];
    share.used_ms = std::max(share.used_ms, least_ms_);
    const auto rank = [](const Share& s) { return std::tie(s.used_ms, s.last_turn); };
    if (best == nullptr || rank(share) < rank(shares_[best])) best = id;
  }
  least_ms_ = shares_[best].used_ms;
  shares_[best].last_turn = ++num_turns_;
  return best;
}

void FairTurns::charge(Id id, double ms) { shares_[id].used_ms += std::max(ms, kLeastMs); }

}  // namespace snapllm
