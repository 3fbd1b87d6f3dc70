#include "scheduler/sequence.h"

#include <algorithm>
#include <utility>

namespace snapllm {
namespace {

// Cells that a sequence is granted at a time, and those it has ahead at least: a step's
// guesses fit.
constexpr int32_t kGrantCells = 256;
constexpr int32_t kMinCellsAhead = 32;

std::vector<std::string> format_stops(const GenerateRequest& request) {
  return request.chat != nullptr ? request.chat->stop() : std::vector<std::string>();
}

AnswerMarkup markup_of(const GenerateRequest& request) {
  const bool is_needed =
      request.chat != nullptr && !request.is_plain && !request.stop.empty();
  return is_needed ? request.chat->markup() : AnswerMarkup{};
}

// Milliseconds between two moments; 0 where the second one never came.
double ms_between(Sequence::Clock::time_point from, Sequence::Clock::time_point to) {
  if (to <= from) return 0.0;
  return std::chrono::duration<double, std::milli>(to - from).count();
}

}  // namespace

Sequence::Sequence(uint64_t request_id, GenerateRequest request, std::unique_ptr<Sampler> sampler,
                   std::shared_ptr<OutputQueue> outputs, PrefixSource prefix,
                   int32_t max_draft_tokens)
    : request_id_(request_id),
      request_(std::move(request)),
      num_prompt_tokens_(static_cast<int32_t>(request_.prompt.size())),
      is_scored_(request_.num_prompt_logprobs >= 0),
      sampler_(std::move(sampler)),
      outputs_(std::move(outputs)),
      tokens_(std::exchange(request_.prompt, {})),
      prefix_(std::move(prefix)),
      drafter_(max_draft_tokens),
      format_stops_(format_stops(request_)),
      stops_(request_.stop, markup_of(request_)) {
  output_.request_id = request_id_;
}

int32_t Sequence::num_pending() const {
  return static_cast<int32_t>(tokens_.size()) - num_computed_;
}

const MediaSpan* Sequence::next_span() const {
  const auto it = std::find_if(request_.media.begin(), request_.media.end(),
                               [&](const MediaSpan& span) { return span.end() > num_computed_; });
  return it == request_.media.end() ? nullptr : &*it;
}

int32_t Sequence::num_pending_text() const {
  const MediaSpan* span = next_span();
  return span == nullptr ? num_pending() : span->begin - num_computed_;
}

int32_t Sequence::position_of(int32_t index) const {
  int32_t position = index;
  for (const MediaSpan& span : request_.media) {
    if (span.end() <= index) position -= span.num_tokens - span.num_positions;
  }
  return position;
}

int32_t Sequence::cut_before_span(int32_t num_tokens) const {
  for (const MediaSpan& span : request_.media) {
    if (span.begin < num_tokens && num_tokens < span.end()) return span.begin;
  }
  return num_tokens;
}

int32_t Sequence::num_first_cells() const {
  if (!can_preempt()) return num_total_cells();
  return std::min(num_total_cells(), static_cast<int32_t>(tokens_.size()) + kGrantCells);
}

int32_t Sequence::num_missing_cells() const {
  if (state_ == SequenceState::kFinished) return 0;
  const auto num_tokens = static_cast<int32_t>(tokens_.size());
  if (num_granted_ >= std::min(num_total_cells(), num_tokens + kMinCellsAhead)) return 0;
  return num_first_cells() - num_granted_;
}

void Sequence::admit(SequenceId id) {
  id_ = own_id_ = id;
  state_ = SequenceState::kPrefilling;
  num_granted_ = num_first_cells();
  if (admitted_at_ == Clock::time_point{}) admitted_at_ = Clock::now();
}

void Sequence::preempt() {
  id_ = own_id_ = -1;
  lender_ = nullptr;
  state_ = SequenceState::kWaiting;
  was_preempted_ = true;
  num_computed_ = num_shared_ = num_granted_ = 0;
  base_ = nullptr;
  cuts_.clear();
  draft_.clear();
}

void Sequence::append_to_batch(int32_t num_tokens, std::vector<BatchEntry>& batch) const {
  for (int32_t i = 0; i < num_tokens; ++i) {
    const int32_t index = num_computed_ + i;
    const int32_t num_guess = i - num_pending();
    const Token token = num_guess < 0 ? tokens_[static_cast<size_t>(index)]
                                      : draft_[static_cast<size_t>(num_guess)];
    const bool is_sampled = num_guess >= -1 && !request_.prefill_only;
    const bool is_output = is_sampled || (is_scored_ && index + 1 < num_prompt_tokens_);
    batch.push_back({token, position_of(index), id_, is_output});
  }
}

std::optional<Token> Sequence::next_of_prompt(int32_t ahead) const {
  const int32_t index = num_computed_ + ahead + 1;
  if (index >= num_prompt_tokens_) return std::nullopt;
  return tokens_[static_cast<size_t>(index)];
}

void Sequence::add_prompt_logprobs(TokenLogprobs logprobs) {
  output_.prompt_logprobs.push_back(std::move(logprobs));
}

void Sequence::draft() {
  // The cells are reserved for max_tokens; the pending token has one of them.
  draft_ = drafter_.propose(tokens_, request_.max_tokens - num_generated_);
}

void Sequence::begin_from(const CacheReport& reused, HotPrefix* base, int32_t num_shared) {
  if (!was_preempted_) {  // else it is its own work that comes back
    cache_ = reused;
    cache_.restore_ms = ms_between(admitted_at_, Clock::now());
  }
  num_computed_ = reused.num_tokens();
  base_ = base;
  num_shared_ = num_shared;
}

void Sequence::note_difference(const Difference& difference) {
  // What is hot may go on where what is stored ends.
  if (!was_preempted_ && difference.at >= cache_.num_tokens()) cache_.difference = difference;
}

int32_t Sequence::last_cut_up_to(int32_t position) const {
  const auto after = std::upper_bound(cuts_.begin(), cuts_.end(), position);
  return after == cuts_.begin() ? 0 : *std::prev(after);
}

bool Sequence::take_cut() {
  if (cuts_.empty() || num_computed_ != cuts_.front()) return false;
  cuts_.pop_front();
  return true;
}

void Sequence::advance(int32_t num_tokens) { num_computed_ += num_tokens; }

void Sequence::accept(SampledToken sampled, std::string_view bytes, bool is_end) {
  const auto now = Clock::now();
  if (state_ == SequenceState::kPrefilling) {
    state_ = SequenceState::kDecoding;
    if (num_generated_ == 0) first_token_at_ = now;
  }
  token_wait_ms_ = ms_between(num_generated_ == 0 ? submitted_at_ : last_token_at_, now);
  last_token_at_ = now;
  tokens_.push_back(sampled.token);
  ++num_generated_;
  if (is_end) return finish(FinishReason::kStop);

  output_.tokens.push_back(sampled.token);
  if (sampled.logprobs.token >= 0) output_.logprobs.push_back(std::move(sampled.logprobs));
  const std::string text = utf8_.push(bytes);
  output_.token_ends.push_back(num_text_bytes_ += text.size());
  output_.text += stops_.push(format_stops_.push(text));
  if (format_stops_.matched() || stops_.matched()) return finish(FinishReason::kStop);
  if (num_generated_ >= request_.max_tokens) finish(FinishReason::kLength);
}

void Sequence::finish(FinishReason reason, Status error) {
  if (state_ == SequenceState::kFinished) return;
  state_ = SequenceState::kFinished;
  finish_reason_ = reason;
  error_ = std::move(error);
  finished_at_ = Clock::now();
  if (!format_stops_.matched()) {
    std::string rest = format_stops_.push(utf8_.finish());  // in a sum either could come first
    rest += format_stops_.finish();
    output_.text += stops_.push(rest);
  }
  output_.text += stops_.finish();
  if (stops_.matched() && finish_reason_ == FinishReason::kLength) {
    finish_reason_ = FinishReason::kStop;
  }
}

bool Sequence::has_output() const {
  const bool has_progress = request_.report_progress && state_ == SequenceState::kPrefilling;
  const bool has_text = !output_.text.empty() || !output_.logprobs.empty() ||
                        !output_.prompt_logprobs.empty();
  return finish_reason_ != FinishReason::kNone || (request_.stream && has_text) || has_progress;
}

RequestOutput Sequence::take_output() {
  RequestOutput output = std::exchange(output_, {});
  output.num_computed_prompt_tokens = std::min(num_computed_, num_prompt_tokens_);
  output.num_cached_tokens = cache_.num_tokens();
  output.num_generated_tokens = num_generated_;
  output_.request_id = request_id_;
  if (finish_reason_ != FinishReason::kNone) fill_final(output);
  return output;
}

double Sequence::queue_ms() const {
  const bool was_admitted = admitted_at_ != Clock::time_point{};
  return ms_between(submitted_at_, was_admitted ? admitted_at_ : finished_at_);
}

void Sequence::fill_final(RequestOutput& output) const {
  output.finish_reason = finish_reason_;
  output.stop_sequence = stops_.match();
  output.error = error_;
  output.num_prompt_tokens = num_prompt_tokens();
  output.cache = cache_;
  output.seed = sampler_->seed();
  const bool was_admitted = admitted_at_ != Clock::time_point{};
  const bool has_tokens = first_token_at_ != Clock::time_point{};
  output.timings.queue_ms = queue_ms();
  if (was_admitted) {
    output.timings.prefill_ms = ms_between(admitted_at_, has_tokens ? first_token_at_ : finished_at_);
  }
  if (has_tokens) output.timings.decode_ms = ms_between(first_token_at_, finished_at_);
}

}  // namespace snapllm
