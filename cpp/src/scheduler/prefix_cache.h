// What one model reuses of earlier prompts: the hot tier in its KV memory, and the
// store below it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "backend/text_backend.h"
#include "scheduler/hot_pool.h"
#include "scheduler/sequence.h"
#include "store/kv_store.h"

namespace snapllm {

// Where a sequence's first tokens come from.
struct PrefixPlan {
  // Another sequence computes more of the prompt right now: wait for it.
  bool deferred = false;
  HotPrefix* hot = nullptr;           // forked off it ...
  const Sequence* running = nullptr;  // ... or off this running sequence:
  int32_t num_tokens = 0;             // so many, whose cells it shares,
  bool counts_again = false;          // though they count as its own, too;
  // and restored from this, what comes after them, or all where it is unread.
  std::optional<StoredPrefix> stored;
  bool is_unread = false;  // what is stored is on disk in part, and is to be read first
  HotPrefix* lender = nullptr;  // under whose id it goes on, `hot` or what that was forked off
  // Of the prompt and what is stored by now; none where the store was not asked.
  std::optional<Difference> difference;

  // Of its cells, those that count as another's.
  int32_t num_shared() const { return counts_again ? 0 : num_tokens; }
};

// Compute thread only, unless said otherwise. `store` may be null: then only the hot tier is used.
class PrefixCache {
 public:
  using Running = std::span<const std::unique_ptr<Sequence>>;

  PrefixCache(std::shared_ptr<const TextModel> model, TextContext& context,
              std::shared_ptr<KvStore> store);

  // The best source for the sequence's prompt.
  PrefixPlan plan(const Sequence& sequence, Running running);
  // Evicts hot prefixes until `num_cells` cells are gained or nothing can go. What the plan goes
  // on from is kept. Their ids go to `free_ids`.
  void make_room(int32_t num_cells, const PrefixPlan& plan, Running running,
                 std::vector<SequenceId>& free_ids);
  // Fills the admitted sequence by the plan. What cannot be restored is computed.
  void fill(Sequence& sequence, PrefixPlan plan, Running running, std::vector<SequenceId>& free_ids);
  // Keeps the state the sequence is in, where it stands at one of its cuts.
  void keep_cut(Sequence& sequence);
  // Stores what a running sequence computed, gives its id and cells back and preempts it.
  void preempt(Sequence& sequence, std::vector<SequenceId>& free_ids);
  // Keeps what a finished sequence computed and gives its id and cells back. Where reading
  // the KV memory holds up what computes, what stays hot is stored later.
  void keep(Sequence& sequence, std::vector<SequenceId>& free_ids);
  // Whether something hot may not be stored yet.
  bool has_unsaved() const;
  // Stores a piece of it.
  void save_some();
  // Stores all of it.
  void save_all();

  // See KvStore::lock_handover; no lock without a store.
  std::unique_lock<std::mutex> lock_handover() {
    return store_ != nullptr ? store_->lock_handover() : std::unique_lock<std::mutex>();
  }

  // Makes the tokens, all of which `stored` holds, a pinned hot prefix. `free_cells` are
  // those not reserved. Fails with kOutOfMemory when there is no room.
  Status promote(const Hash128& root, std::span<const Token> tokens, const StoredPrefix& stored,
                 int32_t free_cells, std::vector<SequenceId>& free_ids);
  // Frees the hot prefixes that begin with these tokens, but for those that also begin with
  // one of `kept`, and for what others share of them.
  void demote(const Hash128& root, std::span<const Token> tokens,
              std::span<const std::vector<Token>> kept, Running running,
              std::vector<SequenceId>& free_ids);
  // Any thread: whether the tokens are hot.
  bool is_hot(const Hash128& root, std::span<const Token> tokens) const {
    return hot_.holds(root, tokens, /*whole_only=*/kind_ == KvKind::kCheckpoints);
  }

  void check_invariants(Running running) const;
  const HotPool& hot() const { return hot_; }
  KvKind kind() const { return kind_; }
  uint64_t num_failed_restores() const { return num_failed_restores_; }

 private:
  // What is stored of the sequence's tokens, to be restored.
  StoredPrefix read(const Sequence& sequence);
  StoreScope scope_of(const Hash128& root) const { return {model_->fingerprint(), root, kind_}; }
  // Takes a prefix out of the KV memory; what the store has not of it is stored first.
  void drop(HotPrefix* prefix, std::vector<SequenceId>& free_ids);
  // Leaves only the first tokens of a prefix, among them all that others share of it; what the
  // store has not of the others is stored first.
  void cut(HotPrefix* prefix, int32_t num_tokens);
  // Takes up to `num_cells` cells that nobody needs off the end of the least recently used prefix
  // that is not pinned, but whose beginning others share or the plan goes on from. Whether there
  // was one.
  bool trim(int32_t num_cells, const PrefixPlan& plan, Running running);
  // Cells of the prefix that others share, beginning with its first.
  int32_t num_shared_with(const HotPrefix& prefix, Running running) const;
  void drop_foreign(const PrefixPlan& plan, std::vector<SequenceId>& free_ids);
  PrefixPlan plan_source(const Sequence& sequence, Running running);
  bool is_deferred(const Sequence& sequence, Running running, int32_t num_available) const;
  // Makes the tokens a pinned prefix where they are the beginning of a hot one, in its cells.
  // Whether they are, and may be pinned.
  bool pin_beginning(const Hash128& root, std::span<const Token> tokens,
                     std::vector<SequenceId>& free_ids);
  // Lets the sequence begin with the first tokens of a hot prefix, which it shares.
  void begin_with(Sequence& sequence, const PrefixPlan& plan);
  // Gives a borrowed id back; with `is_kept`, what the sequence computed stays under its own.
  void return_id(Sequence& sequence, bool is_kept);
  // Forgets the KV of a sequence that ends and gives its id back.
  void release(Sequence& sequence, std::vector<SequenceId>& free_ids);
  // Restores what the plan has stored, behind what it has hot.
  void restore_plan(Sequence& sequence, PrefixPlan& plan, Running running,
                    std::vector<SequenceId>& free_ids);
  // Whether what is forked off the running sequence counts as that of one hot prefix, which there is
  // or can be.
  bool can_share(const Sequence& source, int32_t num_tokens) const;
  void fork_running(Sequence& sequence, const PrefixPlan& plan, Running running,
                    std::vector<SequenceId>& free_ids);
  // Cells that hold nothing, though running sequences may have them reserved.
  int32_t num_unused_cells(Running running) const;
  // Frees hot prefixes where the restore of a part of a block needs cells for all of it; leaves
  // that part out where this is not enough.
  void make_room_to_cut(StoredPrefix& stored, Running running, std::vector<SequenceId>& free_ids);
  // Returns the end of what was restored, 0 if nothing was.
  int32_t restore(SequenceId id, const StoredPrefix& stored, int32_t& num_cold);
  // Stores what the store has not of the tokens, whose KV is that of the sequence `id`.
  void save_missing(SequenceId id, const Hash128& root, std::span<const Token> tokens);
  // One piece of it; false where it cannot be read.
  bool save_piece(SequenceId id, const StoreScope& scope, std::span<const Token> tokens,
                  TokenRange range);
  bool park(Sequence& sequence, bool is_unsaved, std::vector<SequenceId>& free_ids);

  const std::shared_ptr<const TextModel> model_;
  TextContext& context_;
  const std::shared_ptr<KvStore> store_;
  const KvKind kind_;
  HotPool hot_;
  uint64_t num_failed_restores_ = 0;
};

}  // namespace snapllm
