#include "scheduler/scheduler.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cmath>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "scheduler/cut_points.h"

namespace snapllm {
namespace {

constexpr double kAverageWeight = 0.2;
// Fewer tell little of the speed; the shortest chunks must tell, or they stay short.
constexpr int32_t kMeasuredPrefillTokens = 16;

}  // namespace

Scheduler::Scheduler(LoadedModel loaded, int32_t max_queued_requests,
                     std::shared_ptr<KvStore> store)
    : model_(std::move(loaded.model)),
      context_(std::move(loaded.context)),
      prefix_cache_(model_, *context_, std::move(store)),
      queue_(static_cast<size_t>(max_queued_requests)),
      counts_(model_->info().id) {
  const ModelInfo& info = model_->info();
  for (SequenceId id = info.max_sequences + info.num_hot_sequences; id-- > 0;) {
    free_ids_.push_back(id);
  }
}

Scheduler::~Scheduler() = default;

Status Scheduler::submit(std::unique_ptr<Sequence> sequence) {
  Status status = queue_.push(std::move(sequence));
  if (status.ok()) counts_.update([](ModelStats& stats) { ++stats.num_requests; });
  return status;
}

ModelStats Scheduler::stats() const {
  // First: who is admitted in between is found both waiting and running, never neither.
  const int32_t num_waiting = queue_.num_waiting();
  ModelStats stats = counts_.read();
  stats.num_waiting = num_waiting;
  embed_counts_.add_to(stats);
  return stats;
}

bool Scheduler::has_work() const {
  return !running_.empty() || !waiting_.empty() || queue_.has_arrivals();
}

void Scheduler::step(const Turn& turn) {
  take_arrivals();
  grant_cells();
  admit();
  if (!running_.empty()) decode(turn);
  compute_media();
  hand_over();
  check_invariants();
}

void Scheduler::take_arrivals() {
  std::vector<uint64_t> cancels;
  queue_.take(waiting_, cancels);
  for (const uint64_t request_id : cancels) cancel_request(request_id);
}

void Scheduler::cancel_request(uint64_t request_id) {
  const auto matches = [&](const auto& s) { return s->request_id() == request_id; };
  if (auto it = std::find_if(running_.begin(), running_.end(), matches); it != running_.end()) {
    (*it)->finish(FinishReason::kCancelled);
    return;  // released at the end of the step
  }
  if (auto it = std::find_if(waiting_.begin(), waiting_.end(), matches); it != waiting_.end()) {
    (*it)->finish(FinishReason::kCancelled);
    counts_.note_finished(**it);
    queue_.note_finished(request_id, /*was_waiting=*/true);
    (*it)->outputs().push({(*it)->take_output()});
    waiting_.erase(it);
  }
}

int32_t Scheduler::num_free_cells() const {
  return model_->info().kv_cells - num_reserved_cells_ - prefix_cache_.hot().num_cells();
}

// First come, first served: nobody overtakes a request that waits for room, only one
// that waits for a prefix which a running sequence is computing.
void Scheduler::admit() {
  size_t count = 0;
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (running_.size() >= static_cast<size_t>(model_->info().max_sequences)) break;
    PrefixPlan plan = prefix_cache_.plan(**it, running_);
    if (plan.deferred) {
      ++it;
      continue;
    }
    const auto num_missing = [&] {
      return (*it)->num_first_cells() - plan.num_shared() - num_free_cells();
    };
    if (num_missing() > 0) prefix_cache_.make_room(num_missing(), plan, running_, free_ids_);
    if (num_missing() > 0 && running_.empty()) {
      // Nobody will give cells back: what it would be forked off is in the way.
      prefix_cache_.make_room(model_->info().kv_cells, {}, running_, free_ids_);
      plan = prefix_cache_.plan(**it, running_);
    }
    if (num_missing() > 0) break;
    auto sequence = std::move(*it);
    it = waiting_.erase(it);
    ++count;
    start(std::move(sequence), std::move(plan));
  }
  if (count == 0) return;
  counts_.update(
      [&](ModelStats& stats) { stats.num_running = static_cast<int32_t>(running_.size()); });
  queue_.note_admitted(count);
}

void Scheduler::grant_cells() {
  for (size_t i = 0; i < running_.size();) {
    Sequence& sequence = *running_[i];
    const int32_t num_cells = sequence.num_missing_cells();
    const auto num_lacking = [&] { return num_cells - num_free_cells(); };
    if (num_cells > 0 && num_lacking() > 0) {
      prefix_cache_.make_room(num_lacking(), {}, running_, free_ids_);
    }
    if (num_cells > 0 && num_lacking() > 0) {
      preempt_youngest();  // perhaps this one
      continue;
    }
    sequence.grant(num_cells);
    num_reserved_cells_ += num_cells;
    ++i;
  }
}

void Scheduler::preempt_youngest() {
  // Whoever lacks cells can be preempted, so there is one.
  const auto it = std::find_if(running_.rbegin(), running_.rend(), [](const auto& sequence) {
    return sequence->can_preempt() && sequence->state() != SequenceState::kFinished;
  });
  auto sequence = std::move(*it);
  running_.erase(std::next(it).base());
  num_reserved_cells_ -= sequence->num_reserved_cells();
  prefix_cache_.preempt(*sequence, free_ids_);
  // Alone, it lacks the cells of what it was forked off.
  if (running_.empty()) prefix_cache_.make_room(model_->info().kv_cells, {}, running_, free_ids_);
  waiting_.push_front(std::move(sequence));
  queue_.note_preempted();
  counts_.update([](ModelStats& stats) { ++stats.num_preemptions; });
}

void Scheduler::start(std::unique_ptr<Sequence> sequence, PrefixPlan plan) {
  sequence->admit(free_ids_.back());
  free_ids_.pop_back();
  prefix_cache_.fill(*sequence, std::move(plan), running_, free_ids_);
  if (prefix_cache_.kind() == KvKind::kCheckpoints && sequence->reuses_prefix()) {
    std::vector<bool> is_control;
    for (const Token token : sequence->prompt()) is_control.push_back(model_->is_control(token));
    sequence->set_cuts(checkpoint_cuts(sequence->prompt(), is_control, sequence->num_computed(),
                                       /*is_kept_whole=*/sequence->is_prefill_only()));
  }
  running_.push_back(std::move(sequence));
  num_reserved_cells_ = 0;
  for (const auto& running : running_) num_reserved_cells_ += running->num_reserved_cells();
  // Its prompt may be there whole.
  Sequence& started = *running_.back();
  if (started.is_prefill_only() && started.num_pending() == 0) started.finish(FinishReason::kStop);
}

std::vector<PendingWork> Scheduler::pending_work() const {
  std::vector<PendingWork> work;
  work.reserve(running_.size());
  for (const auto& sequence : running_) {
    const bool is_finished = sequence->state() == SequenceState::kFinished;
    work.push_back({sequence->num_computed(), is_finished ? 0 : sequence->num_pending_text(),
                    sequence->state() == SequenceState::kDecoding,
                    static_cast<int32_t>(sequence->drafted().size()), sequence->next_cut(),
                    sequence->is_scored()});
  }
  return work;
}

PrefillPace Scheduler::pace(std::span<const PendingWork> work, const Turn& turn) const {
  const auto decodes = [](const PendingWork& each) { return each.decoding; };
  if (turn.others_wait || std::ranges::any_of(work, decodes)) return PrefillPace::kShared;
  const auto is_pending = [](const PendingWork& each) { return each.num_pending > 0; };
  const bool can_stop = turn.is_wanted != nullptr && model_->info().can_stop && owed_ms_ <= 0.0 &&
                        std::ranges::count_if(work, is_pending) == 1;
  return can_stop ? PrefillPace::kStoppable : PrefillPace::kAlone;
}

void Scheduler::note_stoppable(double ms, bool was_stopped) {
  if (!was_stopped) {
    owed_ms_ = std::max(0.0, owed_ms_ - ms);
    return;
  }
  // However often something comes, a tenth is lost at most.
  constexpr double kKeptForLost = 10.0;
  owed_ms_ += kKeptForLost * ms;
  counts_.update([](ModelStats& stats) { ++stats.num_stopped_steps; });
}

void Scheduler::decode(const Turn& turn) {
  using Clock = std::chrono::steady_clock;
  draft();
  const std::vector<PendingWork> work = pending_work();
  const PrefillPace pace = this->pace(work, turn);
  const auto shares = plan_batch(work, model_->batch_tokens(),
                                 prefill_budget(pace, model_->batch_tokens(),
                                                model_->ubatch_tokens(), ms_per_prefill_token_));
  if (shares.empty()) return;

  batch_.clear();
  std::vector<int32_t> begins;  // of the shares, in the batch
  int32_t num_prefill = 0;
  for (const BatchShare& share : shares) {
    if (running_[share.index]->state() == SequenceState::kPrefilling) num_prefill += share.num_tokens;
    begins.push_back(static_cast<int32_t>(batch_.size()));
    running_[share.index]->append_to_batch(share.num_tokens, batch_);
  }
  const auto start = Clock::now();
  const auto ms_since_start = [&] {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  };
  const bool can_stop = pace == PrefillPace::kStoppable;
  auto outcome = context_->decode(batch_, can_stop ? turn.is_wanted : nullptr);
  if (!outcome.ok()) return fail_shares(shares, outcome.status());
  const bool was_stopped = outcome.value() == DecodeOutcome::kStopped;
  note_stoppable(ms_since_start(), was_stopped);
  if (was_stopped) return;
  if (outcome.value() == DecodeOutcome::kCellsFull) {
    // Admission reserved the cells, so this is a fault of ours or of the model's
    // memory, and waiting would not help.
    return fail_shares(shares, {StatusCode::kGenerationFailed, "the model's KV memory is full"});
  }
  bool is_measured = num_prefill >= kMeasuredPrefillTokens;  // but where scoring takes its time
  std::vector<int32_t> output_index;  // of each share's last pending token; -1 = there are more
  for (size_t i = 0; i < shares.size(); ++i) {
    Sequence& sequence = *running_[shares[i].index];
    const int32_t num_computed = std::min(shares[i].num_tokens, sequence.num_pending());
    const bool is_last = num_computed == sequence.num_pending() && !sequence.is_prefill_only();
    if (sequence.is_scored()) {
      score(sequence, begins[i], num_computed);
      is_measured = false;
    }
    const bool is_sampled = is_last && sequence.state() != SequenceState::kFinished;
    output_index.push_back(is_sampled ? begins[i] + num_computed - 1 : -1);
    note_computed(sequence, num_computed);
  }
  sample(shares, output_index);

  if (is_measured) {
    const double measured = ms_since_start() / static_cast<double>(batch_.size());
    ms_per_prefill_token_ += ms_per_prefill_token_ == 0.0
                                 ? measured
                                 : kAverageWeight * (measured - ms_per_prefill_token_);
  }
}

void Scheduler::score(Sequence& sequence, int32_t begin, int32_t num_computed) {
  if (sequence.num_computed() == 0) {
    const Token first = sequence.prompt().front();
    sequence.add_prompt_logprobs({first, model_->token_bytes(first, /*special=*/true), NAN, {}});
  }
  for (int32_t i = 0; i < num_computed; ++i) {
    const std::optional<Token> next = sequence.next_of_prompt(i);
    if (!next) return;
    auto logprobs = context_->logprobs(*next, begin + i, sequence.num_prompt_logprobs());
    if (!logprobs.ok()) return sequence.finish(FinishReason::kError, logprobs.status());
    sequence.add_prompt_logprobs(std::move(logprobs).value());
  }
}

void Scheduler::note_computed(Sequence& sequence, int32_t num_tokens) {
  sequence.advance(num_tokens);
  prefix_cache_.keep_cut(sequence);
  if (sequence.is_prefill_only() && sequence.num_pending() == 0) {
    sequence.finish(FinishReason::kStop);
  }
}

void Scheduler::compute_media() {
  const auto waits = [](const std::unique_ptr<Sequence>& sequence) {
    return sequence->state() == SequenceState::kPrefilling && sequence->is_at_span();
  };
  for (const auto& sequence : running_) {
    const bool has_turn =
        std::ranges::find(media_turns_, sequence->request_id()) != media_turns_.end();
    if (waits(sequence) && !has_turn) media_turns_.push_back(sequence->request_id());
  }
  auto next = running_.end();
  for (; !media_turns_.empty(); media_turns_.pop_front()) {
    next = std::ranges::find(running_, media_turns_.front(), &Sequence::request_id);
    if (next != running_.end() && waits(*next)) break;
  }
  if (media_turns_.empty()) return;
  Sequence& sequence = **next;
  const MediaChunk& chunk = *sequence.next_span()->chunk;
  Status status;
  if (context_->is_encoded(chunk)) {
    status = decode_span(sequence);
    media_turns_.pop_front();
  } else {
    // Computed in the next step: what others encode meanwhile could take its place.
    status = context_->encode_media(chunk);
    if (status.ok()) counts_.update([](ModelStats& stats) { ++stats.num_encoded_media; });
  }
  if (!status.ok()) sequence.finish(FinishReason::kError, std::move(status));
}

Status Scheduler::decode_span(Sequence& sequence) {
  const MediaSpan& span = *sequence.next_span();
  auto outcome =
      context_->decode_media(*span.chunk, sequence.id(), sequence.position_of(span.begin));
  if (!outcome.ok()) return outcome.status();
  if (outcome.value() == DecodeOutcome::kCellsFull) {
    return {StatusCode::kGenerationFailed, "the model's KV memory is full"};
  }
  note_computed(sequence, span.num_tokens);
  return {};
}

void Scheduler::sample(const std::vector<BatchShare>& shares,
                       const std::vector<int32_t>& output_index) {
  for (size_t i = 0; i < shares.size(); ++i) {
    if (output_index[i] >= 0) sample_share(shares[i], output_index[i]);
  }
  counts_.update([&](ModelStats& stats) {
    ++stats.num_steps;
    stats.num_batch_tokens += batch_.size();
    stats.num_batch_sequences += shares.size();
  });
}

void Scheduler::sample_share(const BatchShare& share, int32_t output_index) {
  Sequence& sequence = *running_[share.index];
  const std::vector<Token> draft = sequence.drafted();
  sequence.drop_draft();
  const auto num_drafted = static_cast<size_t>(
      sequence.state() == SequenceState::kDecoding ? share.num_tokens - 1 : 0);
  size_t num_accepted = 0;
  while (true) {
    auto sampled =
        context_->sample(sequence.sampler(), output_index + static_cast<int32_t>(num_accepted));
    if (!sampled.ok()) {
      sequence.finish(FinishReason::kError, sampled.status());
      break;
    }
    const Token token = sampled.value().token;
    accept_token(sequence, std::move(sampled).value());
    if (sequence.state() == SequenceState::kFinished || num_accepted == num_drafted ||
        token != draft[num_accepted]) {
      break;
    }
    // The token is in the KV memory already.
    ++num_accepted;
    note_computed(sequence, 1);
  }
  if (num_drafted == 0) return;
  if (num_accepted < num_drafted) {
    context_->truncate_sequence(sequence.id(), sequence.position_of(sequence.num_computed()));
  }
  sequence.drafter().note(static_cast<int32_t>(num_drafted), static_cast<int32_t>(num_accepted));
  counts_.update([&](ModelStats& stats) {
    stats.num_draft_tokens += num_drafted;
    stats.num_accepted_draft_tokens += num_accepted;
  });
}

void Scheduler::draft() {
  const auto decodes = [](const auto& s) { return s->state() == SequenceState::kDecoding; };
  const auto num_decoding = std::count_if(running_.begin(), running_.end(), decodes);
  for (const auto& sequence : running_) {
    if (decodes(sequence) && num_decoding <= kMaxDraftingSequences) {
      sequence->draft();
    } else {
      sequence->drop_draft();
    }
  }
}

void Scheduler::accept_token(Sequence& sequence, SampledToken sampled) {
  const Token token = sampled.token;
  const bool is_end = model_->is_end_of_generation(token);
  const std::string bytes =
      is_end ? std::string()
             : model_->token_bytes(token, model_->is_preserved(sequence.chat(), token));
  sequence.accept(std::move(sampled), bytes, is_end);
  counts_.note_token(sequence);
}

void Scheduler::fail_shares(const std::vector<BatchShare>& shares, const Status& status) {
  for (const BatchShare& share : shares) {
    running_[share.index]->finish(FinishReason::kError, status);
  }
}

void Scheduler::hand_over() {
  const bool any_ended = std::any_of(running_.begin(), running_.end(), [](const auto& sequence) {
    return sequence->state() == SequenceState::kFinished;
  });
  // The end of an answer goes out first: nobody waits for what is only kept for later.
  const auto lock = any_ended ? prefix_cache_.lock_handover() : std::unique_lock<std::mutex>();
  flush_outputs();
  release_finished();
}

void Scheduler::flush_outputs() {
  // One push for each queue, so that a reader of many requests wakes once a step.
  std::unordered_map<OutputQueue*, std::vector<RequestOutput>> outputs;
  int32_t num_unfinished = 0;
  for (const auto& sequence : running_) {
    num_unfinished += sequence->state() != SequenceState::kFinished;
    if (sequence->has_output()) outputs[&sequence->outputs()].push_back(sequence->take_output());
    if (sequence->state() == SequenceState::kFinished) {
      counts_.note_finished(*sequence);
      queue_.note_finished(sequence->request_id(), /*was_waiting=*/false);
    }
  }
  // Whoever has an answer's end does not find it running any more.
  counts_.update([&](ModelStats& stats) { stats.num_running = num_unfinished; });
  for (auto& [queue, list] : outputs) queue->push(std::move(list));
}

void Scheduler::release_finished() {
  std::erase_if(running_, [&](const std::unique_ptr<Sequence>& sequence) {
    if (sequence->state() != SequenceState::kFinished) return false;
    num_reserved_cells_ -= sequence->num_reserved_cells();
    prefix_cache_.keep(*sequence, free_ids_);
    return true;
  });
  update_stats();
}

void Scheduler::update_stats() {
  const HotPool& hot = prefix_cache_.hot();
  counts_.update([&](ModelStats& stats) {
    stats.num_running = static_cast<int32_t>(running_.size());
    stats.num_kv_cells_used = num_reserved_cells_ + hot.num_cells();
    stats.num_hot_prefixes = hot.size();
    stats.num_hot_tokens = hot.num_cells();
    stats.num_failed_restores = prefix_cache_.num_failed_restores();
  });
}

Status Scheduler::promote(const Hash128& root, std::span<const Token> tokens,
                          const StoredPrefix& stored) {
  Status status = prefix_cache_.promote(root, tokens, stored, num_free_cells(), free_ids_);
  update_stats();
  return status;
}

void Scheduler::demote(const Hash128& root, std::span<const Token> tokens,
                       std::span<const std::vector<Token>> kept) {
  prefix_cache_.demote(root, tokens, kept, running_, free_ids_);
  update_stats();
}

void Scheduler::abort_all(const Status& status) {
  end_status_ = status;
  take_arrivals();
  for (const auto& sequence : running_) sequence->finish(FinishReason::kError, status);
  hand_over();
  for (const auto& sequence : waiting_) {
    sequence->finish(FinishReason::kError, status);
    counts_.note_finished(*sequence);
    queue_.note_finished(sequence->request_id(), /*was_waiting=*/true);
    sequence->outputs().push({sequence->take_output()});
  }
  waiting_.clear();
  prefix_cache_.save_all();
}

void Scheduler::check_invariants() const {
#ifndef NDEBUG
  int32_t reserved = 0;
  for (const auto& sequence : running_) reserved += sequence->num_reserved_cells();
  assert(reserved == num_reserved_cells_);
  assert(num_free_cells() >= 0);
  const auto num_hot = static_cast<size_t>(prefix_cache_.hot().size());
  const ModelInfo& info = model_->info();
  assert(running_.size() + num_hot + free_ids_.size() ==
         static_cast<size_t>(info.max_sequences + info.num_hot_sequences));
  prefix_cache_.check_invariants(running_);
#endif
}

}  // namespace snapllm
