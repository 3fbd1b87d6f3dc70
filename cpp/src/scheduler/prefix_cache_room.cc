// How cells of the hot tier come free for what runs.
#include <algorithm>
#include <cassert>
#include <unordered_map>

#include "scheduler/prefix_cache.h"

namespace snapllm {

void PrefixCache::drop(HotPrefix* prefix, std::vector<SequenceId>& free_ids) {
  if (prefix->is_unsaved) save_missing(prefix->id, prefix->root, prefix->tokens);
  context_.clear_sequence(prefix->id);
  free_ids.push_back(prefix->id);
  hot_.remove(prefix);
}

void PrefixCache::cut(HotPrefix* prefix, int32_t num_tokens) {
  if (prefix->is_unsaved) save_missing(prefix->id, prefix->root, prefix->tokens);
  prefix->is_unsaved = false;
  context_.truncate_sequence(prefix->id, num_tokens);
  hot_.trim(prefix, num_tokens);
}

// Attention over the whole KV memory pays for parked prefixes with every token, while the
// store gives them back for less than a token's time.
void PrefixCache::drop_foreign(const PrefixPlan& plan, std::vector<SequenceId>& free_ids) {
  if (store_ == nullptr) return;
  while (hot_.num_parked_cells() > model_->info().max_foreign_tokens) {
    HotPrefix* victim = hot_.victim(plan.hot);
    if (victim == nullptr || victim->pinned) return;
    drop(victim, free_ids);
  }
}

void PrefixCache::make_room(int32_t num_cells, const PrefixPlan& plan, Running running,
                            std::vector<SequenceId>& free_ids) {
  const int32_t enough = hot_.num_cells() - num_cells;
  while (hot_.num_cells() > enough) {
    HotPrefix* const victim = hot_.victim(plan.hot);
    const bool is_dear = victim == nullptr || victim->pinned;
    if (is_dear && trim(hot_.num_cells() - enough, plan, running)) continue;
    if (victim == nullptr) return;
    drop(victim, free_ids);
  }
}

// One that is lent, or is to be, is needed whole by whatever was forked off it.
bool PrefixCache::trim(int32_t num_cells, const PrefixPlan& plan, Running running) {
  if (kind_ != KvKind::kBlocks) return false;
  HotPrefix* oldest = nullptr;
  int32_t num_kept = 0;
  for (const HotPrefix& prefix : hot_.prefixes()) {
    if (prefix.pinned) continue;
    if (oldest != nullptr && oldest->last_used <= prefix.last_used) continue;
    int32_t num_needed = std::max(prefix.num_shared, num_shared_with(prefix, running));
    if (&prefix == plan.hot) num_needed = std::max(num_needed, plan.num_tokens);
    if (num_needed == prefix.num_tokens()) continue;
    oldest = const_cast<HotPrefix*>(&prefix);
    num_kept = num_needed;
  }
  if (oldest == nullptr) return false;
  cut(oldest, std::max(num_kept, oldest->num_tokens() - num_cells));
  return true;
}

void PrefixCache::check_invariants(Running running) const {
#ifndef NDEBUG
  std::unordered_map<const HotPrefix*, int32_t> num_users;
  int32_t num_cells = 0;
  for (const HotPrefix& prefix : hot_.prefixes()) {
    num_cells += prefix.num_own_cells();
    assert(prefix.num_own_cells() >= 0);
    assert(prefix.num_shared <= (prefix.base != nullptr ? prefix.base->num_tokens() : 0));
    if (prefix.base != nullptr) ++num_users[prefix.base];
  }
  assert(num_cells == hot_.num_cells());
  for (const auto& sequence : running) {
    if (sequence->base() != nullptr) ++num_users[sequence->base()];
    assert(sequence->num_computed() - sequence->num_shared() <= sequence->num_reserved_cells());
  }
  for (const HotPrefix& prefix : hot_.prefixes()) {
    assert(prefix.num_users == num_users[&prefix]);
    const auto borrows = [&](const auto& sequence) { return sequence->lender() == &prefix; };
    assert(std::ranges::count_if(running, borrows) == (prefix.is_lent ? 1 : 0));
  }
#else
  (void)running;
#endif
}

int32_t PrefixCache::num_unused_cells(Running running) const {
  int32_t num_cells = model_->info().kv_cells - hot_.num_cells();
  for (const auto& sequence : running) {
    num_cells -= std::max(0, sequence->num_computed() - sequence->num_shared());
  }
  return num_cells;
}

// A block of which only the beginning is wanted is restored whole and then cut.
void PrefixCache::make_room_to_cut(StoredPrefix& stored, Running running,
                                   std::vector<SequenceId>& free_ids) {
  if (stored.parts.empty()) return;
  const StoredPrefix::Part& last = stored.parts.back();
  if (last.range.begin + last.num_tokens == last.range.end) return;
  const int32_t num_needed = last.range.end - stored.parts.front().range.begin;
  while (num_unused_cells(running) < num_needed) {
    HotPrefix* victim = hot_.victim(nullptr);
    if (victim == nullptr || victim->pinned) return stored.cut(last.range.begin);
    drop(victim, free_ids);
  }
}

int32_t PrefixCache::num_shared_with(const HotPrefix& prefix, Running running) const {
  int32_t num_shared = 0;
  for (const HotPrefix& other : hot_.prefixes()) {
    if (other.base == &prefix) num_shared = std::max(num_shared, other.num_shared);
  }
  for (const auto& sequence : running) {
    if (sequence->base() == &prefix) num_shared = std::max(num_shared, sequence->num_shared());
  }
  return num_shared;
}

}  // namespace snapllm
