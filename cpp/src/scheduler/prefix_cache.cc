#include "scheduler/prefix_cache.h"

#include <algorithm>
#include <utility>

namespace snapllm {
namespace {

// Shorter prefixes are computed faster than they are kept.
constexpr int32_t kMinKeptTokens = 16;
// A sequence waits for another's prefill if that saves it at least so many tokens.
constexpr int32_t kMinSharedPrefill = 64;

// Whose sequence id a request can go on under that begins with the first tokens of `source`, so
// that fewer cells are to be forked, which takes time for each; null = nobody's. Its cells are those
// of `source`: others may have been written later than what is forked besides, and attention sums
// in that order.
HotPrefix* find_lender(HotPrefix& source, int32_t num_tokens) {
  HotPrefix* at = &source;
  int32_t num_same = num_tokens;
  while (at->is_lent || at->num_tokens() > num_same) {
    if (at->base == nullptr) return nullptr;
    num_same = std::min(num_same, at->num_shared);
    at = at->base;
  }
  // At the end all is forked that is to stay: a short one would cost more than it saves.
  return num_tokens - at->num_tokens() <= num_tokens / 2 ? at : nullptr;
}

}  // namespace

PrefixCache::PrefixCache(std::shared_ptr<const TextModel> model, TextContext& context,
                         std::shared_ptr<KvStore> store)
    : model_(std::move(model)),
      context_(context),
      store_(std::move(store)),
      kind_(model_->kv_kind()),
      hot_(model_->info().num_hot_sequences,
           std::max(model_->info().max_hot_tokens, model_->info().max_foreign_tokens)) {}

bool PrefixCache::is_deferred(const Sequence& sequence, Running running,
                              int32_t num_available) const {
  return std::any_of(running.begin(), running.end(), [&](const auto& other) {
    if (other->state() != SequenceState::kPrefilling || other->root() != sequence.root() ||
        !other->reuses_prefix()) {
      return false;
    }
    int32_t common =
        std::min(common_prefix(other->tokens(), sequence.tokens()), sequence.max_reusable());
    // What is restored whole can be gone on from only where its state will be kept.
    if (kind_ == KvKind::kCheckpoints) common = other->last_cut_up_to(common);
    return common >= num_available + kMinSharedPrefill && other->num_computed() < common;
  });
}

PrefixPlan PrefixCache::plan(const Sequence& sequence, Running running) {
  PrefixPlan plan = plan_source(sequence, running);
  // Where the tokens are all its base's it is that, or the rest of it would have to stay.
  while (plan.hot != nullptr && plan.hot->base != nullptr &&
         plan.hot->num_shared >= plan.num_tokens) {
    plan.hot = plan.hot->base;
  }
  if (plan.running != nullptr) plan.counts_again = !can_share(*plan.running, plan.num_tokens);
  if (plan.hot != nullptr && !plan.stored && kind_ == KvKind::kBlocks) {
    plan.lender = find_lender(*plan.hot, plan.num_tokens);
  }
  return plan;
}

PrefixPlan PrefixCache::plan_source(const Sequence& sequence, Running running) {
  PrefixPlan plan;
  if (!sequence.reuses_prefix()) return plan;
  const auto prompt = sequence.tokens();  // with an answer's beginning after a preemption
  const bool whole_only = kind_ == KvKind::kCheckpoints;
  const auto hot = hot_.match(sequence.root(), prompt, sequence.max_reusable(), whole_only);
  const int32_t num_hot = sequence.cut_before_span(hot.num_tokens);
  // A context that was promoted is used however short it is.
  const bool is_wanted = hot.prefix != nullptr && hot.prefix->pinned &&
                         num_hot == hot.prefix->num_tokens();
  if ((num_hot >= kMinKeptTokens || is_wanted) && (!whole_only || num_hot == hot.num_tokens)) {
    plan.hot = hot.prefix;
    plan.num_tokens = num_hot;
  }
  const PrefixPlan only_hot = plan;
  if (!whole_only) {
    for (const auto& other : running) {
      if (other->root() != sequence.root() || !other->reuses_prefix()) continue;
      const int32_t common = sequence.cut_before_span(
          std::min({common_prefix(other->tokens(), prompt), other->num_computed(),
                    sequence.max_reusable()}));
      if (common > plan.num_tokens && common >= kMinKeptTokens) {
        plan.running = other.get();
        plan.num_tokens = common;
      }
    }
    if (plan.running != nullptr) plan.hot = nullptr;
  }
  // A state that is kept of a running sequence is in the store alone.
  plan.deferred = (!whole_only || store_ != nullptr) &&
                  is_deferred(sequence, running, plan.num_tokens);
  if (plan.deferred) return plan;
  if (store_ == nullptr || plan.num_tokens >= sequence.max_reusable()) return plan;
  // What another request has stored since, or else what was read when this one came.
  StoredPrefix stored = store_->match(scope_of(sequence.root()), prompt, sequence.max_reusable(),
                                      Reading::kNone);
  plan.difference = stored.difference;
  int32_t num_held = stored.num_tokens;
  // What did not fit RAM when it came is read when it starts.
  if (sequence.prefetched().num_unread_tokens > 0) num_held += stored.num_unread_tokens;
  const bool is_unread =
      num_held > std::max(stored.num_tokens, sequence.prefetched().num_tokens);
  if (!is_unread && sequence.prefetched().num_tokens >= stored.num_tokens) {
    stored = sequence.prefetched();
    num_held = stored.num_tokens;
  }
  const int32_t num_stored = sequence.cut_before_span(num_held);
  if (num_stored < num_held && whole_only) return plan;
  if (num_stored <= plan.num_tokens) return plan;
  if (!is_unread && num_stored < num_held) stored.cut(num_stored);
  plan.is_unread = is_unread;
  plan.running = nullptr;
  // What is hot need neither be restored nor have cells of its own.
  const bool is_begun = only_hot.hot != nullptr && !is_unread && !whole_only;
  plan.num_tokens = is_begun ? stored.skip(only_hot.num_tokens) : 0;
  plan.hot = plan.num_tokens > 0 ? only_hot.hot : nullptr;
  plan.stored = std::move(stored);
  return plan;
}

StoredPrefix PrefixCache::read(const Sequence& sequence) {
  StoredPrefix stored = store_->match(scope_of(sequence.root()), sequence.tokens(),
                                      sequence.max_reusable(), Reading::kAll);
  const int32_t num_stored = sequence.cut_before_span(stored.num_tokens);
  if (num_stored == stored.num_tokens) return stored;
  if (kind_ == KvKind::kCheckpoints) return {};
  stored.cut(num_stored);
  return stored;
}

void PrefixCache::begin_with(Sequence& sequence, const PrefixPlan& plan) {
  int32_t num_lent = 0;
  if (plan.lender != nullptr) {
    plan.lender->is_lent = true;
    sequence.borrow(plan.lender, plan.lender->id);
    num_lent = plan.lender->num_tokens();
  }
  if (num_lent < plan.num_tokens) {
    context_.fork_sequence(plan.hot->id, sequence.id(), {num_lent, plan.num_tokens});
  }
  hot_.acquire(plan.hot);
  sequence.begin_from({plan.num_tokens, 0, 0}, plan.hot, plan.num_tokens);
}

void PrefixCache::return_id(Sequence& sequence, bool is_kept) {
  HotPrefix* const lender = sequence.lender();
  if (lender == nullptr) return;
  if (is_kept) {
    context_.fork_sequence(lender->id, sequence.own_id(), {0, sequence.num_computed()});
  }
  context_.truncate_sequence(lender->id, lender->num_tokens());
  lender->is_lent = false;
  sequence.return_id();
}

void PrefixCache::release(Sequence& sequence, std::vector<SequenceId>& free_ids) {
  return_id(sequence, /*is_kept=*/false);
  context_.clear_sequence(sequence.id());
  free_ids.push_back(sequence.id());
  if (sequence.base() != nullptr) hot_.release(sequence.base());
}

bool PrefixCache::can_share(const Sequence& source, int32_t num_tokens) const {
  const bool is_shared = source.base() != nullptr && source.num_shared() >= num_tokens;
  return is_shared || hot_.can_have_room(source.base());
}

void PrefixCache::fork_running(Sequence& sequence, const PrefixPlan& plan, Running running,
                               std::vector<SequenceId>& free_ids) {
  const auto it = std::find_if(running.begin(), running.end(),
                               [&](const auto& other) { return other.get() == plan.running; });
  Sequence& source = **it;
  if (source.base() != nullptr && source.num_shared() >= plan.num_tokens) {
    // Both go on from what the source itself was forked off.
    context_.fork_sequence(source.base()->id, sequence.id(), {0, plan.num_tokens});
    hot_.acquire(source.base());
    sequence.begin_from({plan.num_tokens, 0, 0}, source.base(), plan.num_tokens);
    return;
  }
  while (!hot_.has_room(0)) {
    HotPrefix* victim = hot_.victim(source.base());
    if (victim == nullptr) break;
    drop(victim, free_ids);
  }
  if (!hot_.has_room(0) || free_ids.empty()) {
    // Shared all the same, but counted for both: the cells outlive either.
    context_.fork_sequence(source.id(), sequence.id(), {0, plan.num_tokens});
    return sequence.begin_from({plan.num_tokens, 0, 0}, nullptr, 0);
  }
  // The shared part becomes a hot prefix, so that it outlives the source.
  HotPrefix prefix;
  prefix.id = free_ids.back();
  free_ids.pop_back();
  prefix.root = source.root();
  const auto tokens = source.tokens().first(static_cast<size_t>(plan.num_tokens));
  prefix.tokens.assign(tokens.begin(), tokens.end());
  prefix.base = source.base();
  prefix.num_shared = source.num_shared();
  context_.fork_sequence(source.id(), prefix.id, {0, plan.num_tokens});
  HotPrefix& added = hot_.add(std::move(prefix));
  // The source's share of its old base is now the prefix's.
  source.rebase(&added, plan.num_tokens);
  hot_.acquire(&added);
  context_.fork_sequence(added.id, sequence.id(), {0, plan.num_tokens});
  hot_.acquire(&added);
  sequence.begin_from({plan.num_tokens, 0, 0}, &added, plan.num_tokens);
}

void PrefixCache::restore_plan(Sequence& sequence, PrefixPlan& plan, Running running,
                               std::vector<SequenceId>& free_ids) {
  if (plan.hot != nullptr) hot_.acquire(plan.hot);
  if (plan.is_unread) plan.stored = read(sequence);
  make_room_to_cut(*plan.stored, running, free_ids);
  int32_t num_cold = 0;
  int32_t end = std::max(plan.num_tokens, restore(sequence.id(), *plan.stored, num_cold));
  // Not before: what a restore finds in a sequence goes.
  if (plan.hot != nullptr) {
    context_.fork_sequence(plan.hot->id, sequence.id(), {0, plan.num_tokens});
  }
  // Where not all could be restored it may end within an image, which is computed as a whole.
  if (const int32_t usable = sequence.cut_before_span(end); usable < end) {
    context_.truncate_sequence(sequence.id(), usable);
    end = usable;
  }
  const int32_t num_hot = std::min(plan.num_tokens, end);
  num_cold = std::min(num_cold, end - num_hot);
  sequence.begin_from({num_hot, end - num_hot - num_cold, num_cold}, plan.hot, num_hot);
}

void PrefixCache::fill(Sequence& sequence, PrefixPlan plan, Running running,
                       std::vector<SequenceId>& free_ids) {
  drop_foreign(plan, free_ids);
  if (plan.stored) {
    restore_plan(sequence, plan, running, free_ids);
  } else if (plan.hot != nullptr) {
    begin_with(sequence, plan);
  } else if (plan.running != nullptr) {
    fork_running(sequence, plan, running, free_ids);
  }
  sequence.note_difference(plan.difference.value_or(sequence.prefetched().difference));
  sequence.forget_prefetched();
}

int32_t PrefixCache::restore(SequenceId id, const StoredPrefix& stored, int32_t& num_cold) {
  std::vector<SavedState> states;
  states.reserve(stored.parts.size());
  for (const StoredPrefix::Part& part : stored.parts) {
    states.push_back({part.state.get(), part.range, part.num_tokens});
  }
  const size_t count = context_.restore_states(id, states);
  if (count < states.size()) ++num_failed_restores_;  // what is there already stays
  int32_t num_restored = 0;
  for (const StoredPrefix::Part& part : std::span(stored.parts).first(count)) {
    num_restored = part.range.begin + part.num_tokens;
    if (part.was_cold) num_cold += part.num_tokens;
  }
  return num_restored;
}

bool PrefixCache::save_piece(SequenceId id, const StoreScope& scope, std::span<const Token> tokens,
                             TokenRange range) {
  auto state = context_.save_state(id, range);
  if (!state.ok()) return false;
  store_->put(scope, tokens.first(static_cast<size_t>(range.end)), range, std::move(state).value());
  return true;
}

void PrefixCache::save_missing(SequenceId id, const Hash128& root, std::span<const Token> tokens) {
  if (store_ == nullptr) return;
  const StoreScope scope = scope_of(root);
  for (const TokenRange range : store_->missing(scope, tokens)) {
    if (!save_piece(id, scope, tokens, range)) return;
  }
}

bool PrefixCache::has_unsaved() const {
  return std::ranges::any_of(hot_.prefixes(), &HotPrefix::is_unoffered);
}

void PrefixCache::save_some() {
  HotPrefix* const prefix = hot_.find_unoffered();
  if (prefix == nullptr) return;
  // What the store had no room for is not offered again, or this would have no end; only when the
  // prefix leaves the KV memory.
  const int32_t num_offered = std::exchange(prefix->num_offered, prefix->num_tokens());
  if (store_ == nullptr) return;
  const StoreScope scope = scope_of(prefix->root);
  const auto missing = store_->missing(scope, prefix->tokens);
  prefix->is_unsaved = !missing.empty();
  const auto next = std::ranges::find_if(
      missing, [&](const TokenRange& range) { return range.end > num_offered; });
  if (next == missing.end()) return;
  if (save_piece(prefix->id, scope, prefix->tokens, *next)) prefix->num_offered = next->end;
}

void PrefixCache::save_all() {
  while (HotPrefix* const prefix = hot_.find_unsaved()) {
    save_missing(prefix->id, prefix->root, prefix->tokens);
    prefix->is_unsaved = false;
  }
}

void PrefixCache::keep_cut(Sequence& sequence) {
  if (sequence.take_cut()) {
    save_missing(sequence.id(), sequence.root(), sequence.computed_tokens());
  }
}

void PrefixCache::preempt(Sequence& sequence, std::vector<SequenceId>& free_ids) {
  save_missing(sequence.id(), sequence.root(), sequence.computed_tokens());
  release(sequence, free_ids);
  sequence.preempt();
}

void PrefixCache::keep(Sequence& sequence, std::vector<SequenceId>& free_ids) {
  const bool is_sound = sequence.finish_reason() != FinishReason::kError;
  const auto tokens = sequence.computed_tokens();
  // A prefill for its own sake is kept however short it is.
  const bool worth_it =
      static_cast<int32_t>(tokens.size()) >= kMinKeptTokens || sequence.is_prefill_only();
  bool is_parked = false;
  if (is_sound && worth_it && sequence.reuses_prefix()) {
    const bool can_park = kind_ == KvKind::kBlocks;
    // Who prefills for its own sake waits for it.
    const bool is_for_later =
        can_park && model_->info().saves_when_idle && !sequence.is_prefill_only();
    if (!is_for_later) save_missing(sequence.id(), sequence.root(), tokens);
    is_parked = can_park && park(sequence, is_for_later, free_ids);
  }
  if (!is_parked) release(sequence, free_ids);
}

// Turns the finished sequence into a hot prefix, in place of what it was forked off
// where nothing else needs that.
bool PrefixCache::park(Sequence& sequence, bool is_unsaved, std::vector<SequenceId>& free_ids) {
  const auto tokens = sequence.computed_tokens();
  const auto num_tokens = static_cast<int32_t>(tokens.size());
  const auto known = hot_.match(sequence.root(), tokens, num_tokens, /*whole_only=*/false);
  if (known.num_tokens == num_tokens) return false;
  HotPrefix* const base = sequence.base();
  if (base != nullptr && base->num_users == 1 && !base->pinned &&
      base->num_tokens() == sequence.num_shared()) {
    if (sequence.lender() == base) {
      base->id = sequence.swap_ids();
      base->is_lent = false;
    }
    sequence.rebase(base->base, base->num_shared);
    if (base->base != nullptr) hot_.acquire(base->base);
    hot_.release(base);
    base->is_unsaved = false;  // it is the beginning of this one
    drop(base, free_ids);
  }
  const int32_t num_own_cells = num_tokens - sequence.num_shared();
  while (!hot_.has_room(num_own_cells)) {
    HotPrefix* victim = hot_.victim(sequence.base());
    // Others are not given up for one that is too large anyway, nor pinned ones at all.
    if (victim == nullptr || victim->pinned || num_own_cells > hot_.max_cells()) {
      if (is_unsaved) save_missing(sequence.id(), sequence.root(), tokens);
      return false;
    }
    drop(victim, free_ids);
  }
  return_id(sequence, /*is_kept=*/true);
  HotPrefix prefix;
  prefix.id = sequence.id();
  prefix.root = sequence.root();
  prefix.tokens.assign(tokens.begin(), tokens.end());
  prefix.base = sequence.base();  // the sequence's use of it is this one's
  prefix.num_shared = sequence.num_shared();
  prefix.is_unsaved = is_unsaved;
  hot_.add(std::move(prefix));
  return true;
}

Status PrefixCache::promote(const Hash128& root, std::span<const Token> tokens,
                            const StoredPrefix& stored, int32_t free_cells,
                            std::vector<SequenceId>& free_ids) {
  const auto num_tokens = static_cast<int32_t>(tokens.size());
  if (HotPrefix* present = hot_.find(root, tokens)) {
    present->pinned = true;
    hot_.touch(present);
    return {};
  }
  // Others need the rest to run.
  const int32_t max_tokens = model_->info().max_hot_tokens;
  const Status no_room(StatusCode::kOutOfMemory,
                       "no room in the model's KV memory for " + std::to_string(num_tokens) +
                           " tokens: at most " + std::to_string(max_tokens) + " can be hot");
  if (num_tokens > max_tokens) return no_room;
  if (pin_beginning(root, tokens, free_ids)) return {};
  while (!hot_.has_room(num_tokens, max_tokens) || free_ids.empty() || free_cells < num_tokens) {
    HotPrefix* victim = hot_.victim(nullptr);
    if (victim == nullptr) return no_room;
    free_cells += victim->num_own_cells();
    drop(victim, free_ids);
  }
  HotPrefix prefix;
  prefix.id = free_ids.back();
  prefix.root = root;
  prefix.tokens.assign(tokens.begin(), tokens.end());
  prefix.pinned = true;
  int32_t num_cold = 0;
  if (restore(prefix.id, stored, num_cold) != num_tokens) {
    context_.clear_sequence(prefix.id);  // the next request gets the id, and must find it empty
    return {StatusCode::kStorageFailed, "the context's KV does not fit the model"};
  }
  free_ids.pop_back();
  hot_.add(std::move(prefix));
  return {};
}

bool PrefixCache::pin_beginning(const Hash128& root, std::span<const Token> tokens,
                                std::vector<SequenceId>& free_ids) {
  const auto num_tokens = static_cast<int32_t>(tokens.size());
  const auto known = hot_.match(root, tokens, num_tokens, /*whole_only=*/false);
  if (kind_ != KvKind::kBlocks || known.num_tokens < num_tokens) return false;
  HotPrefix* owner = known.prefix;
  while (owner->num_shared >= num_tokens) owner = owner->base;
  if (hot_.num_pinned_cells_with(*owner, num_tokens) > model_->info().max_hot_tokens) return false;
  while (!hot_.has_slot() || free_ids.empty()) {
    HotPrefix* const victim = hot_.victim(owner);
    if (victim == nullptr || victim->pinned) return false;
    drop(victim, free_ids);
  }
  HotPrefix prefix;
  prefix.id = free_ids.back();
  free_ids.pop_back();
  prefix.root = root;
  prefix.tokens.assign(tokens.begin(), tokens.end());
  prefix.pinned = true;
  context_.fork_sequence(owner->id, prefix.id, {0, num_tokens});
  hot_.add_beginning(std::move(prefix), owner);
  return true;
}

void PrefixCache::demote(const Hash128& root, std::span<const Token> tokens,
                         std::span<const std::vector<Token>> kept, Running running,
                         std::vector<SequenceId>& free_ids) {
  const auto begins_with = [](const HotPrefix& prefix, std::span<const Token> head) {
    return common_prefix(head, prefix.tokens) == static_cast<int32_t>(head.size());
  };
  const auto is_wanted_elsewhere = [&](const HotPrefix& prefix) {
    return std::ranges::any_of(kept, [&](const auto& other) { return begins_with(prefix, other); });
  };
  const auto find = [&](const auto& fits) -> HotPrefix* {
    for (const HotPrefix& prefix : hot_.prefixes()) {
      if (prefix.root != root || !begins_with(prefix, tokens)) continue;
      if (!is_wanted_elsewhere(prefix) && fits(prefix)) return const_cast<HotPrefix*>(&prefix);
    }
    return nullptr;
  };
  // Those that nothing shares go first: it may be theirs, what others have to keep.
  const auto is_unused = [](const HotPrefix& prefix) { return prefix.num_users == 0; };
  const auto can_be_cut = [&](const HotPrefix& prefix) {
    return kind_ == KvKind::kBlocks &&
           num_shared_with(prefix, running) < static_cast<int32_t>(tokens.size());
  };
  const auto is_pinned = [](const HotPrefix& prefix) { return prefix.pinned; };
  while (HotPrefix* const prefix = find(is_pinned)) prefix->pinned = false;
  for (;;) {
    if (HotPrefix* const unused = find(is_unused)) {
      drop(unused, free_ids);
    } else if (HotPrefix* const shared = find(can_be_cut)) {
      cut(shared, num_shared_with(*shared, running));
    } else {
      return;
    }
  }
}

}  // namespace snapllm
