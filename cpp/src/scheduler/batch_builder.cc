#include "scheduler/batch_builder.h"

#include <algorithm>

#include "backend/text_backend.h"
#include "store/piece.h"

namespace snapllm {
namespace {

constexpr int32_t kChunkStep = 32;
// Computed to learn the speed.
constexpr int32_t kFirstChunkTokens = 64;
// Time that a chunk may take: between two tokens of a running stream, until who comes meanwhile can
// begin, and where that interrupts it, which costs what was computed.
constexpr double kSharedChunkMs = 200.0;
constexpr double kLoneChunkMs = 500.0;
constexpr double kStoppableChunkMs = 4000.0;

int32_t cut_chunk(const PendingWork& work, int32_t budget) {
  const int32_t to_cut = work.next_cut - work.num_computed;
  if (to_cut > 0 && to_cut <= std::min(budget, work.num_pending)) return to_cut;
  if (work.num_pending <= budget) return work.num_pending;
  const int32_t end = work.num_computed + budget;
  const int32_t boundary = end / kBlockTokens * kBlockTokens;
  return boundary > work.num_computed ? boundary - work.num_computed : budget;
}

// The first to come has most of the budget, and those that are nearest to their end have the rest:
// a short prompt does not wait for the end of a long one.
void share_prefill(std::span<const PendingWork> running, int32_t budget,
                   std::vector<BatchShare>& shares) {
  std::vector<size_t> order;
  int32_t num_others = 0;
  for (size_t i = 0; i < running.size(); ++i) {
    if (running[i].decoding || running[i].num_pending == 0) continue;
    if (!order.empty()) num_others = std::min(budget, num_others + running[i].num_pending);
    order.push_back(i);
  }
  if (order.empty() || budget <= 0) return;
  std::stable_sort(order.begin() + 1, order.end(), [&](size_t a, size_t b) {
    return running[a].num_pending < running[b].num_pending;
  });
  const int32_t kept = std::max(kChunkStep, budget / 4 / kChunkStep * kChunkStep);
  const int32_t kept_for_others = std::min({kept, num_others, budget / 2});
  int32_t num_scored = 0;
  for (const size_t i : order) {
    if (budget <= 0) return;
    int32_t most = i == order.front() ? budget - kept_for_others : budget;
    if (running[i].is_scored) most = std::min(most, kMaxScoredTokens - num_scored);
    if (most <= 0) continue;
    const int32_t num_tokens = cut_chunk(running[i], most);
    shares.push_back({i, num_tokens});
    budget -= num_tokens;
    if (running[i].is_scored) num_scored += num_tokens;
  }
}

}  // namespace

int32_t prefill_budget(PrefillPace pace, int32_t batch_tokens, int32_t ubatch_tokens,
                       double ms_per_prefill_token) {
  const int32_t most = pace == PrefillPace::kShared ? ubatch_tokens : batch_tokens;
  if (ms_per_prefill_token <= 0.0) return std::min(most, kFirstChunkTokens);
  const auto fitting = [&](double ms, int32_t most_tokens) {
    const double exact = ms / ms_per_prefill_token;
    if (exact >= most_tokens) return most_tokens;
    const auto num_tokens = static_cast<int32_t>(exact);
    const int32_t step = num_tokens >= ubatch_tokens ? ubatch_tokens : kChunkStep;
    return std::min(most_tokens, std::max(kChunkStep, num_tokens / step * step));
  };
  if (pace == PrefillPace::kShared) return fitting(kSharedChunkMs, most);
  const int32_t alone = fitting(kLoneChunkMs, most);
  if (pace == PrefillPace::kAlone || alone >= ubatch_tokens) return alone;
  return fitting(kStoppableChunkMs, ubatch_tokens);
}

std::vector<BatchShare> plan_batch(std::span<const PendingWork> running, int32_t batch_tokens,
                                   int32_t prefill_tokens) {
  std::vector<BatchShare> shares;
  int32_t free_tokens = batch_tokens;
  for (size_t i = 0; i < running.size() && free_tokens > 0; ++i) {
    if (!running[i].decoding) continue;
    const int32_t num_tokens = std::min(1 + running[i].num_draft, free_tokens);
    shares.push_back({i, num_tokens});
    free_tokens -= num_tokens;
  }
  share_prefill(running, std::min(prefill_tokens, free_tokens), shares);
  return shares;
}

}  // namespace snapllm
