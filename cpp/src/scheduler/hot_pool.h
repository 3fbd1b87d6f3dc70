// The hot tier: prefixes whose KV stays in the model's KV memory.
#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <span>
#include <vector>

#include "base/hash.h"
#include "snapllm/request.h"

namespace snapllm {

// A prefix that stays under a sequence id of its own. Running sequences and other
// prefixes that were forked off it share its cells, so it stays while they do.
struct HotPrefix {
  int32_t id = -1;  // sequence id
  Hash128 root;     // of the model and namespace
  std::vector<Token> tokens;
  HotPrefix* base = nullptr;  // whose first num_shared cells it shares; null = none
  int32_t num_shared = 0;
  int32_t num_users = 0;  // what shares cells with it
  bool pinned = false;    // promoted by hand: leaves only for want of cells
  bool is_unsaved = false;  // it may hold KV that the store has not
  int32_t num_offered = 0;  // first tokens whose KV the store was offered while nothing computed
  // A running sequence goes on under its id: there may be more than its tokens under it.
  bool is_lent = false;
  uint64_t last_used = 0;

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_own_cells() const { return num_tokens() - num_shared; }
  bool is_unoffered() const { return is_unsaved && num_offered < num_tokens(); }
};

// Book-keeping only: the caller copies and clears the sequences. Compute thread only, but for
// holds(); prefixes keep their address until they are removed.
class HotPool {
 public:
  HotPool(int32_t max_prefixes, int32_t max_cells)
      : max_prefixes_(max_prefixes), max_cells_(max_cells) {}

  struct Match {
    HotPrefix* prefix = nullptr;
    int32_t num_tokens = 0;
  };
  // The prefix that has most of the prompt's first tokens, at most `max_tokens`; with
  // `whole_only`, only prefixes that are a prefix of the prompt.
  Match match(const Hash128& root, std::span<const Token> prompt, int32_t max_tokens,
              bool whole_only);
  // The prefix of exactly these tokens, or null.
  HotPrefix* find(const Hash128& root, std::span<const Token> tokens);

  // Any thread: whether a prefix begins with these tokens, or with `whole_only` is just these.
  bool holds(const Hash128& root, std::span<const Token> tokens, bool whole_only) const;

  // Whether there may be one more prefix.
  bool has_slot() const { return size() < max_prefixes_; }
  // Whether one more prefix with so many cells of its own is within the bounds.
  bool has_room(int32_t num_cells) const { return has_room(num_cells, max_cells_); }
  // The same with a bound of cells that is lower.
  bool has_room(int32_t num_cells, int32_t max_cells) const {
    return has_slot() && num_cells_ + num_cells <= max_cells;
  }
  // Whether one more prefix is within the bounds, without cells of its own, once all have left that
  // nothing but one of these shares. `keep` stays.
  bool can_have_room(const HotPrefix* keep) const;
  // The least recently used prefix that may not be stored; null = none.
  HotPrefix* find_unsaved();
  // Of those that the store was not offered whole.
  HotPrefix* find_unoffered();
  // The least recently used prefix that nothing shares, pinned ones only after all
  // others; null when none can go. `keep` is left out.
  HotPrefix* victim(const HotPrefix* keep);
  HotPrefix& add(HotPrefix prefix);
  // REQUIRES: num_users == 0
  void remove(HotPrefix* prefix);
  // Leaves only its first tokens. REQUIRES: num_tokens is at least what is shared of it
  void trim(HotPrefix* prefix, int32_t num_tokens);
  // Adds a prefix of another's first tokens, which that goes on from afterwards: what it shared of
  // its base is the new prefix's share.
  // REQUIRES: of->num_shared < beginning.num_tokens() < of->num_tokens()
  void add_beginning(HotPrefix beginning, HotPrefix* of);

  void acquire(HotPrefix* prefix);
  void release(HotPrefix* prefix);
  void touch(HotPrefix* prefix) { prefix->last_used = ++clock_; }

  // Cells of the prefixes that nobody asked to keep.
  int32_t num_parked_cells() const;
  // Cells that pinned prefixes hold, were the first `num_tokens` of `more` pinned as well.
  int32_t num_pinned_cells_with(const HotPrefix& more, int32_t num_tokens) const;
  int32_t max_cells() const { return max_cells_; }
  int32_t num_cells() const { return num_cells_; }
  int32_t size() const { return static_cast<int32_t>(prefixes_.size()); }
  const std::list<HotPrefix>& prefixes() const { return prefixes_; }

 private:
  template <typename Predicate>
  HotPrefix* oldest(Predicate fits);
  const int32_t max_prefixes_;
  const int32_t max_cells_;
  mutable std::mutex mutex_;  // for changes of what prefixes there are, and for holds()
  std::list<HotPrefix> prefixes_;
  int32_t num_cells_ = 0;
  uint64_t clock_ = 0;
};

}  // namespace snapllm
