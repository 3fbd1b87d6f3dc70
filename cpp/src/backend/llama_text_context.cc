#include "backend/llama_text_context.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "backend/llama_embedder.h"
#include "backend/llama_projector.h"
#include "backend/llama_runtime.h"
#include "backend/llama_sampler.h"
#include "backend/state_reader.h"
#include "ggml-backend.h"
#include "llama-ext.h"

namespace snapllm {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

// Not with a GPU, though nothing be put there, nor with a library for products of matrices.
bool has_cpu_alone() {
  for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
    if (ggml_backend_dev_type(ggml_backend_dev_get(i)) != GGML_BACKEND_DEVICE_TYPE_CPU) return false;
  }
  return true;
}

}  // namespace

LlamaTextContext::LlamaTextContext(std::shared_ptr<const LlamaTextModel> model,
                                   LlamaContextPtr context, int32_t max_threads, bool tunes)
    : model_(std::move(model)),
      context_(std::move(context)),
      max_threads_(max_threads),
      num_threads_(max_threads),
      batch_(llama_batch_init(model_->batch_tokens(), /*embd=*/0, /*n_seq_max=*/1)) {
  // What helpers read must stay memory while they may. What one graph computes does, where no other
  // device takes a part of it; llama.cpp may cut other models' batches into several graphs.
  const bool can_help = model_->kv_kind() == KvKind::kBlocks && has_cpu_alone();
  if (tunes && max_threads > 1) {
    tuner_.emplace(max_threads, can_help ? model_->ubatch_tokens() : 0);
  }
  llama_set_n_threads(context_.get(), max_threads_, max_threads_);
  llama_set_abort_callback(context_.get(), &is_stopped, this);
}

LlamaTextContext::~LlamaTextContext() { llama_batch_free(batch_); }

bool LlamaTextContext::is_stopped(void* context) {
  const std::atomic<bool>* stop = static_cast<const LlamaTextContext*>(context)->stop_;
  return stop != nullptr && stop->load(std::memory_order_relaxed);
}

Result<DecodeOutcome> LlamaTextContext::decode(const std::vector<BatchEntry>& batch,
                                               const std::atomic<bool>* stop) {
  stop_ = stop;
  auto outcome = with_weights([&] { return compute_tuned(batch); });
  stop_ = nullptr;
  if (!outcome.ok() || outcome.value() != DecodeOutcome::kStopped) return outcome;
  truncate_sequence(batch.front().sequence, batch.front().position);
  return outcome;
}

template <typename Compute>
Result<DecodeOutcome> LlamaTextContext::with_weights(Compute&& compute) const {
  if (Status status = model_->check_intact(); !status.ok()) return status;
  Result<DecodeOutcome> outcome = compute();
  if (Status status = model_->check_intact(); !status.ok()) return status;
  return outcome;
}

Result<DecodeOutcome> LlamaTextContext::compute_tuned(const std::vector<BatchEntry>& batch) {
  if (!tuner_ || batch.empty()) return compute(batch);
  const StepThreads threads = tuner_->choose(static_cast<int32_t>(batch.size()));
  llama_set_n_threads(context_.get(), threads.num_threads, threads.num_threads);
  const auto start = Clock::now();
  auto outcome = compute(batch, threads.num_helpers);
  const bool is_done = outcome.ok() && outcome.value() == DecodeOutcome::kDone;
  if (is_done) tuner_->note(microseconds_since(start));
  return outcome;
}

Result<DecodeOutcome> LlamaTextContext::compute(const std::vector<BatchEntry>& batch,
                                                int32_t num_helpers) {
  if (batch.empty() || batch.size() > static_cast<size_t>(model_->batch_tokens())) {
    return Status(StatusCode::kGenerationFailed, "a batch is empty or too large");
  }
  batch_.n_tokens = static_cast<int32_t>(batch.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    batch_.token[i] = batch[i].token;
    batch_.pos[i] = batch[i].position;
    batch_.n_seq_id[i] = 1;
    batch_.seq_id[i][0] = batch[i].sequence;
    batch_.logits[i] = batch[i].output ? 1 : 0;
  }
  return guard_llama(StatusCode::kGenerationFailed, [&]() -> Result<DecodeOutcome> {
    LlamaLogCapture log;
    const CellOrders::Scope scope(orders_);
    std::optional<Helpers::Scope> helping;
    if (num_helpers > 0) {
      if (!helpers_) helpers_.emplace(num_helpers);
      helping.emplace(*helpers_);
    }
    const int32_t result = llama_decode(context_.get(), batch_);
    if (result == 0) return DecodeOutcome::kDone;
    if (result == 1) return DecodeOutcome::kCellsFull;
    if (result == 2) return DecodeOutcome::kStopped;
    return Status(StatusCode::kGenerationFailed,
                  "decode failed (" + std::to_string(result) + "). " + log.errors());
  });
}

// A model without a projector makes no chunks.
bool LlamaTextContext::is_encoded(const MediaChunk& chunk) const {
  return model_->projector()->is_encoded(static_cast<const LlamaMediaChunk&>(chunk));
}

Status LlamaTextContext::encode_media(const MediaChunk& chunk) {
  return model_->projector()->encode(static_cast<const LlamaMediaChunk&>(chunk));
}

Result<DecodeOutcome> LlamaTextContext::decode_media(const MediaChunk& chunk, SequenceId sequence,
                                                     int32_t position) {
  LlamaLogCapture log;
  const CellOrders::Scope scope(orders_);
  if (tuner_) llama_set_n_threads(context_.get(), max_threads_, max_threads_);
  return with_weights([&]() -> Result<DecodeOutcome> {
    const auto result = model_->projector()->decode(static_cast<const LlamaMediaChunk&>(chunk),
                                                    context_.get(), sequence, position);
    if (!result.ok()) return result.status();
    if (result.value() == 0) return DecodeOutcome::kDone;
    if (result.value() == 1) return DecodeOutcome::kCellsFull;
    return Status(StatusCode::kGenerationFailed,
                  "decode failed (" + std::to_string(result.value()) + "). " + log.errors());
  });
}

Result<SampledToken> LlamaTextContext::sample(Sampler& sampler, int32_t batch_index) {
  auto& llama_sampler = static_cast<LlamaSampler&>(sampler);
  return guard_llama(StatusCode::kGenerationFailed, [&]() -> Result<SampledToken> {
    SampledToken sampled;
    sampled.token = llama_sampler.sample(context_.get(), batch_index);
    if (sampled.token < 0) {
      const float* logits = llama_get_logits_ith(context_.get(), batch_index);
      if (!are_numbers(logits, model_->info().vocab_size)) {
        return Status(StatusCode::kGenerationFailed,
                      "the model computed numbers that are not finite, of which no token follows");
      }
      return Status(StatusCode::kInvalidRequest,
                    "no token is left to sample: the grammar allows none that the model has and that "
                    "logit_bias leaves, or names one that ends answers");
    }
    if (llama_sampler.num_logprobs() >= 0) {
      sampled.logprobs = logprobs_of(sampled.token, batch_index, llama_sampler.num_logprobs());
    }
    return sampled;
  });
}

Result<TokenLogprobs> LlamaTextContext::logprobs(Token token, int32_t batch_index,
                                                 int32_t num_alternatives) {
  return guard_llama(StatusCode::kGenerationFailed, [&]() -> Result<TokenLogprobs> {
    return logprobs_of(token, batch_index, num_alternatives);
  });
}

void LlamaTextContext::clear_sequence(SequenceId sequence) {
  llama_memory_seq_rm(llama_get_memory(context_.get()), sequence, -1, -1);
}

void LlamaTextContext::truncate_sequence(SequenceId sequence, int32_t position) {
  llama_memory_seq_rm(llama_get_memory(context_.get()), sequence, position, -1);
}

void LlamaTextContext::fork_sequence(SequenceId from, SequenceId to, TokenRange range) {
  const bool is_whole = model_->kv_kind() == KvKind::kCheckpoints;
  llama_memory_seq_cp(llama_get_memory(context_.get()), from, to, is_whole ? -1 : range.begin,
                      is_whole ? -1 : range.end);
}

Result<StateBytes> LlamaTextContext::save_state(SequenceId sequence, TokenRange range) {
  const bool is_part = model_->kv_kind() == KvKind::kBlocks;
  auto saved = guard_llama(StatusCode::kGenerationFailed, [&]() -> Result<StateBytes> {
    const SequenceId source = is_part ? scratch() : sequence;
    if (is_part) {
      llama_memory_seq_cp(llama_get_memory(context_.get()), sequence, source, range.begin, range.end);
    }
    StateBytes state(llama_state_seq_get_size(context_.get(), source));
    const size_t size =
        llama_state_seq_get_data(context_.get(), state.data(), state.size(), source);
    if (size == 0 || size != state.size()) {
      return Status(StatusCode::kGenerationFailed, "the sequence's state cannot be read");
    }
    return state;
  });
  // Also where memory ran out: cells that were left there would be of the next state.
  if (is_part) clear_sequence(scratch());
  return saved;
}

bool LlamaTextContext::set_states(SequenceId sequence, std::span<const SavedState> states) {
  LlamaLogCapture log;
  const auto is_set = guard_llama(StatusCode::kGenerationFailed, [&]() -> Result<bool> {
    return snapllm::set_states(context_.get(), orders_, sequence, states);
  });
  if (!is_set.ok() || !is_set.value()) return false;
  // A state carries no identity: that its positions are right is all it can be asked.
  // Images can take fewer positions than tokens.
  const llama_memory_t memory = llama_get_memory(context_.get());
  const TokenRange range{states.front().range.begin, states.back().range.end};
  const bool is_block = model_->kv_kind() == KvKind::kBlocks;
  const int32_t last = llama_memory_seq_pos_max(memory, sequence);
  const bool is_mrope = model_->projector() != nullptr && model_->projector()->uses_mrope();
  const bool has_end = is_mrope ? last >= 0 && last < range.end : last == range.end - 1;
  return has_end && (!is_block || llama_memory_seq_pos_min(memory, sequence) == range.begin);
}

size_t LlamaTextContext::restore_states(SequenceId sequence, std::span<const SavedState> states) {
  if (model_->kv_kind() == KvKind::kCheckpoints) {
    size_t count = 0;
    while (count < states.size() && set_states(sequence, states.subspan(count, 1))) ++count;
    if (count < states.size()) clear_sequence(sequence);
    return count;
  }
  if (states.empty()) return 0;
  if (set_states(sequence, states)) {
    const SavedState& last = states.back();
    const int32_t num_tokens = last.range.begin + last.num_tokens;
    if (num_tokens < last.range.end) truncate_sequence(sequence, num_tokens);
    return states.size();
  }
  clear_sequence(sequence);
  return restore_one_by_one(sequence, states);
}

size_t LlamaTextContext::restore_one_by_one(SequenceId sequence,
                                            std::span<const SavedState> states) {
  size_t count = 0;
  // Setting one clears the scratch sequence of the one before it.
  while (count < states.size() && set_states(scratch(), states.subspan(count, 1))) {
    const SavedState& saved = states[count++];
    llama_memory_seq_cp(llama_get_memory(context_.get()), scratch(), sequence, saved.range.begin,
                        saved.range.begin + saved.num_tokens);
  }
  clear_sequence(scratch());
  return count;
}

TokenLogprobs LlamaTextContext::logprobs_of(Token token, int32_t batch_index,
                                            int32_t num_alternatives) const {
  const float* logits = llama_get_logits_ith(context_.get(), batch_index);
  const int32_t vocab_size = model_->info().vocab_size;
  const float highest = *std::max_element(logits, logits + vocab_size);
  double sum = 0.0;
  for (int32_t i = 0; i < vocab_size; ++i) sum += std::exp(static_cast<double>(logits[i] - highest));
  const float log_sum = highest + static_cast<float>(std::log(sum));

  std::vector<Token> order;
  if (num_alternatives > 0) {
    order.resize(static_cast<size_t>(vocab_size));
    std::iota(order.begin(), order.end(), 0);
    const auto middle = order.begin() + std::min(num_alternatives, vocab_size);
    std::partial_sort(order.begin(), middle, order.end(),
                      [&](Token a, Token b) { return logits[a] > logits[b]; });
    order.erase(middle, order.end());
  }

  TokenLogprobs result;
  result.token = token;
  result.bytes = model_->token_bytes(token, /*special=*/true);
  result.logprob = logits[token] - log_sum;
  for (const Token each : order) {
    result.top.push_back(
        {each, model_->token_bytes(each, /*special=*/true), logits[each] - log_sum});
  }
  return result;
}

Result<Embedder*> LlamaTextContext::embedder() {
  if (embedder_ == nullptr) {
    auto created = LlamaEmbedder::create(model_, max_threads_);
    if (!created.ok()) return created.status();
    embedder_ = std::move(created).value();
    has_embedder_ = true;
  }
  return embedder_.get();
}

uint64_t LlamaTextContext::embedder_bytes() const {
  return has_embedder_ ? 0 : LlamaEmbedder::needed_bytes(*model_);
}

double LlamaTextContext::time_decode(int32_t num_threads) {
  llama_set_n_threads(context_.get(), num_threads, max_threads_);
  const auto start = Clock::now();
  const bool is_done = compute({{0, 0, 0, true}}).ok();
  llama_synchronize(context_.get());
  const double us = microseconds_since(start);
  clear_sequence(0);
  llama_set_n_threads(context_.get(), num_threads_, max_threads_);
  return is_done ? us : std::numeric_limits<double>::max();
}

void LlamaTextContext::set_num_threads(int32_t num_threads) {
  num_threads_ = num_threads;
  llama_set_n_threads(context_.get(), num_threads_, max_threads_);
  if (tuner_) tuner_->begin_with(num_threads);
}

ContextMemory LlamaTextContext::memory() const {
  ContextMemory memory = memory_of(context_.get());
  if (embedder_ == nullptr) return memory;
  const ContextMemory more = embedder_->memory();
  memory.kv_bytes += more.kv_bytes;
  memory.compute_bytes += more.compute_bytes;
  memory.gpu_bytes += more.gpu_bytes;
  return memory;
}

ContextMemory memory_of(const llama_context* context) {
  ContextMemory memory;
  for (const auto& [type, bytes] : llama_get_memory_breakdown(context)) {
    memory.kv_bytes += bytes.context;
    memory.compute_bytes += bytes.compute;
    // Buffers with weights in an order of the CPU's own are none of the host's, and on no GPU.
    const ggml_backend_dev_t device = ggml_backend_buft_get_device(type);
    const bool is_on_cpu =
        device != nullptr && ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
    if (!is_on_cpu && !ggml_backend_buft_is_host(type)) memory.gpu_bytes += bytes.total();
  }
  return memory;
}

}  // namespace snapllm
