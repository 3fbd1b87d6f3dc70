#include "scheduler/hot_pool.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "store/piece.h"

namespace snapllm {

HotPool::Match HotPool::match(const Hash128& root, std::span<const Token> prompt,
                              int32_t max_tokens, bool whole_only) {
  Match best;
  for (HotPrefix& prefix : prefixes_) {
    if (prefix.root != root) continue;
    const int32_t usable = std::min(common_prefix(prefix.tokens, prompt), max_tokens);
    if (whole_only && usable < prefix.num_tokens()) continue;
    if (usable > best.num_tokens) best = {&prefix, usable};
  }
  return best;
}

HotPrefix* HotPool::find(const Hash128& root, std::span<const Token> tokens) {
  for (HotPrefix& prefix : prefixes_) {
    if (prefix.root == root && std::ranges::equal(prefix.tokens, tokens)) return &prefix;
  }
  return nullptr;
}

bool HotPool::holds(const Hash128& root, std::span<const Token> tokens, bool whole_only) const {
  std::lock_guard lock(mutex_);
  return std::any_of(prefixes_.begin(), prefixes_.end(), [&](const HotPrefix& prefix) {
    if (prefix.root != root || prefix.tokens.size() < tokens.size()) return false;
    if (whole_only && prefix.tokens.size() > tokens.size()) return false;
    return std::equal(tokens.begin(), tokens.end(), prefix.tokens.begin());
  });
}

bool HotPool::can_have_room(const HotPrefix* keep) const {
  std::unordered_map<const HotPrefix*, int32_t> num_users;
  for (const HotPrefix& prefix : prefixes_) num_users[&prefix] = prefix.num_users;
  int32_t num_cells = num_cells_;
  const auto can_leave = [&](const auto& item) { return item.second == 0 && item.first != keep; };
  for (;;) {
    const auto it = std::ranges::find_if(num_users, can_leave);
    if (it == num_users.end()) break;
    num_cells -= it->first->num_own_cells();
    if (it->first->base != nullptr) --num_users[it->first->base];
    num_users.erase(it);
  }
  return static_cast<int32_t>(num_users.size()) < max_prefixes_ && num_cells <= max_cells_;
}

HotPrefix* HotPool::find_unsaved() {
  return oldest([](const HotPrefix& prefix) { return prefix.is_unsaved; });
}

HotPrefix* HotPool::find_unoffered() {
  return oldest([](const HotPrefix& prefix) { return prefix.is_unoffered(); });
}

template <typename Predicate>
HotPrefix* HotPool::oldest(Predicate fits) {
  HotPrefix* found = nullptr;
  for (HotPrefix& prefix : prefixes_) {
    if (!fits(prefix)) continue;
    if (found == nullptr || prefix.last_used < found->last_used) found = &prefix;
  }
  return found;
}

int32_t HotPool::num_parked_cells() const {
  int32_t num_parked = 0;
  for (const HotPrefix& prefix : prefixes_) {
    if (!prefix.pinned) num_parked += prefix.num_own_cells();
  }
  return num_parked;
}

int32_t HotPool::num_pinned_cells_with(const HotPrefix& more, int32_t num_tokens) const {
  std::unordered_map<const HotPrefix*, int32_t> held;  // of each prefix's first tokens
  const auto hold = [&](const HotPrefix* at, int32_t count) {
    for (; at != nullptr; at = at->base) {
      held[at] = std::max(held[at], count);
      count = std::min(count, at->num_shared);
    }
  };
  for (const HotPrefix& prefix : prefixes_) {
    if (prefix.pinned) hold(&prefix, prefix.num_tokens());
  }
  hold(&more, num_tokens);
  int32_t num_cells = 0;
  for (const auto& [prefix, count] : held) num_cells += std::max(0, count - prefix->num_shared);
  return num_cells;
}

HotPrefix* HotPool::victim(const HotPrefix* keep) {
  HotPrefix* best = nullptr;
  for (HotPrefix& prefix : prefixes_) {
    if (prefix.num_users > 0 || &prefix == keep) continue;
    if (best == nullptr || std::pair(prefix.pinned, prefix.last_used) <
                               std::pair(best->pinned, best->last_used)) {
      best = &prefix;
    }
  }
  return best;
}

HotPrefix& HotPool::add(HotPrefix prefix) {
  std::lock_guard lock(mutex_);
  HotPrefix& added = prefixes_.emplace_back(std::move(prefix));
  num_cells_ += added.num_own_cells();
  touch(&added);
  return added;
}

void HotPool::remove(HotPrefix* prefix) {
  num_cells_ -= prefix->num_own_cells();
  if (prefix->base != nullptr) release(prefix->base);
  std::lock_guard lock(mutex_);
  prefixes_.remove_if([&](const HotPrefix& other) { return &other == prefix; });
}

void HotPool::trim(HotPrefix* prefix, int32_t num_tokens) {
  num_cells_ -= prefix->num_own_cells();
  std::lock_guard lock(mutex_);
  prefix->tokens.resize(static_cast<size_t>(num_tokens));
  prefix->num_shared = std::min(prefix->num_shared, num_tokens);
  num_cells_ += prefix->num_own_cells();
}

void HotPool::add_beginning(HotPrefix beginning, HotPrefix* of) {
  beginning.base = of->base;
  beginning.num_shared = of->num_shared;
  num_cells_ -= of->num_own_cells();
  HotPrefix& added = add(std::move(beginning));
  of->base = &added;
  of->num_shared = added.num_tokens();
  num_cells_ += of->num_own_cells();
  acquire(&added);
}

void HotPool::acquire(HotPrefix* prefix) {
  ++prefix->num_users;
  touch(prefix);
}

void HotPool::release(HotPrefix* prefix) { --prefix->num_users; }

}  // namespace snapllm
