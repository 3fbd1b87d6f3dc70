#include "backend/llama_embedder.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "backend/llama_runtime.h"
#include "base/machine.h"

namespace snapllm {
namespace {

// Inputs computed together. A recurrent state is allocated for each of them.
constexpr int32_t kMaxPacked = 16;
constexpr int32_t kMaxPackedRecurrent = 4;
// llama.cpp keeps a row of logits for every token of a batch that embeds.
constexpr uint64_t kMaxRowBytes = uint64_t{64} << 20;
constexpr int32_t kMinStepTokens = 32;

bool sees_all_tokens(const llama_model* model, const std::string& architecture) {
  std::array<char, 16> value{};
  const std::string key = architecture + ".attention.causal";
  return llama_model_meta_val_str(model, key.c_str(), value.data(), value.size()) >= 0 &&
         std::string_view(value.data()) == "false";
}

bool names_pooling(const llama_model* model, const std::string& architecture) {
  std::array<char, 16> value{};
  const std::string key = architecture + ".pooling_type";
  return llama_model_meta_val_str(model, key.c_str(), value.data(), value.size()) >= 0 &&
         std::string_view(value.data()) != "0";
}

}  // namespace

struct LlamaEmbedder::Limits {
  bool takes_whole = false;
  int32_t max_input_tokens = 0;
  int32_t step_tokens = 0;
  int32_t batch_tokens = 0;
  uint64_t row_bytes = 0;  // of each token of a batch: logits and vector

  uint64_t rows_bytes() const { return static_cast<uint64_t>(batch_tokens) * row_bytes; }
};

namespace {

// Compute buffers beside those that are computed.
constexpr uint64_t kOverheadBytes = uint64_t{16} << 20;

llama_context_params context_params(const LlamaTextModel& model, int32_t num_cells,
                                    int32_t batch_tokens, bool takes_whole, int32_t num_threads) {
  const bool is_recurrent =
      llama_model_is_recurrent(model.get()) || llama_model_is_hybrid(model.get());
  int32_t max_packed = is_recurrent ? kMaxPackedRecurrent : kMaxPacked;
  if (!can_batch_sequences(model.info().architecture)) max_packed = 1;
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(num_cells);
  params.n_seq_max = static_cast<uint32_t>(max_packed);
  params.n_batch = std::max(static_cast<uint32_t>(batch_tokens), params.n_seq_max);
  params.n_ubatch = params.n_batch;
  params.n_outputs_max = params.n_batch;
  params.embeddings = true;
  params.kv_unified = true;
  params.swa_full = false;
  // An input taken whole would need the square of its length otherwise.
  params.flash_attn_type = takes_whole || model.info().flash_attention
                               ? LLAMA_FLASH_ATTN_TYPE_AUTO
                               : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.pooling_type = takes_whole ? LLAMA_POOLING_TYPE_UNSPECIFIED : LLAMA_POOLING_TYPE_NONE;
  params.n_threads = params.n_threads_batch = num_threads;
  params.no_perf = true;
  return params;
}

}  // namespace

LlamaEmbedder::LlamaEmbedder(std::shared_ptr<const LlamaTextModel> model, LlamaContextPtr context,
                             const Limits& limits)
    : model_(std::move(model)),
      context_(std::move(context)),
      takes_whole_(limits.takes_whole),
      max_input_tokens_(limits.max_input_tokens),
      step_tokens_(limits.step_tokens),
      batch_(llama_batch_init(max_input_tokens_, /*embd=*/0, /*n_seq_max=*/1)) {}

LlamaEmbedder::~LlamaEmbedder() { llama_batch_free(batch_); }

LlamaEmbedder::Limits LlamaEmbedder::limits_of(const LlamaTextModel& model) {
  const ModelInfo& info = model.info();
  Limits limits;
  limits.takes_whole = !info.supports_generation ||
                       sees_all_tokens(model.get(), info.architecture) ||
                       names_pooling(model.get(), info.architecture);
  limits.max_input_tokens =
      std::min({info.context_size, std::max(info.train_context_size, 1), model.embedding_tokens()});
  limits.row_bytes = sizeof(float) * static_cast<uint64_t>(info.vocab_size + info.embedding_size);
  const auto affordable_rows = static_cast<int32_t>(std::min<uint64_t>(
      kMaxRowBytes / limits.row_bytes, static_cast<uint64_t>(model.ubatch_tokens())));
  limits.step_tokens = std::min(std::max(affordable_rows, kMinStepTokens), limits.max_input_tokens);
  limits.batch_tokens = limits.takes_whole ? limits.max_input_tokens : limits.step_tokens;
  return limits;
}

uint64_t LlamaEmbedder::needed_bytes(const LlamaTextModel& model) {
  const ModelInfo& info = model.info();
  const Limits limits = limits_of(model);
  const auto num_cells = static_cast<uint64_t>(limits.max_input_tokens);
  // Its KV is of type f16: of another type the model's may have half the bytes.
  const uint64_t kv_bytes =
      info.kv_cells > 0 ? 2 * info.kv_bytes / static_cast<uint64_t>(info.kv_cells) * num_cells : 0;
  const bool is_flash = limits.takes_whole || info.flash_attention;
  const auto num_scores =
      static_cast<uint64_t>(is_flash ? 1 : 1 + llama_model_n_head(model.get()));
  const uint64_t score_bytes =
      sizeof(float) * num_cells * static_cast<uint64_t>(limits.batch_tokens) * num_scores;
  // The rows once as they are computed and once as they are kept.
  return 2 * limits.rows_bytes() + kv_bytes + score_bytes + kOverheadBytes;
}

Result<std::unique_ptr<LlamaEmbedder>> LlamaEmbedder::create(
    std::shared_ptr<const LlamaTextModel> model, int32_t num_threads) {
  const ModelInfo& info = model->info();
  const Limits limits = limits_of(*model);
  if (limits.rows_bytes() > available_memory_bytes()) {
    return Status(StatusCode::kOutOfMemory,
                  "not enough memory for the embeddings of model " + info.id);
  }
  return guard_llama(StatusCode::kOutOfMemory, [&]() -> Result<std::unique_ptr<LlamaEmbedder>> {
    LlamaLogCapture log;
    const LlamaAssertTrap trap;  // it builds the graph once, to see what that takes
    LlamaContextPtr context(
        llama_init_from_model(model->get(), context_params(*model, limits.max_input_tokens,
                                                           limits.batch_tokens, limits.takes_whole,
                                                           num_threads)));
    if (!context) {
      return Status(StatusCode::kOutOfMemory,
                    "no context for the embeddings of model " + info.id + ": " + log.errors());
    }
    if (llama_pooling_type(context.get()) == LLAMA_POOLING_TYPE_RANK) {
      return Status(StatusCode::kInvalidModel,
                    "model " + info.id + " ranks texts and has no embeddings");
    }
    return std::unique_ptr<LlamaEmbedder>(
        new LlamaEmbedder(model, std::move(context), limits));
  });
}

Status LlamaEmbedder::check(Pooling pooling) const {
  if (pooling == Pooling::kAuto || llama_pooling_type(context_.get()) == LLAMA_POOLING_TYPE_NONE) {
    return {};
  }
  return {StatusCode::kInvalidRequest,
          "model " + model_->info().id + " has a pooling of its own; leave it at auto"};
}

void LlamaEmbedder::append(const std::vector<Token>& input, int32_t begin, int32_t end,
                           int32_t id) {
  for (int32_t position = begin; position < end; ++position) {
    const int32_t row = batch_.n_tokens++;
    batch_.token[row] = input[static_cast<size_t>(position)];
    batch_.pos[row] = position;
    batch_.n_seq_id[row] = 1;
    batch_.seq_id[row][0] = id;
    batch_.logits[row] = 1;
  }
}

Status LlamaEmbedder::compute() {
  if (Status status = model_->check_intact(); !status.ok()) return status;
  LlamaLogCapture log;
  const int32_t result = llama_decode(context_.get(), batch_);
  if (result == 0) return model_->check_intact();
  return {StatusCode::kGenerationFailed,
          "embedding failed (" + std::to_string(result) + "). " + log.errors()};
}

void LlamaEmbedder::clear_memory() {
  if (const llama_memory_t memory = llama_get_memory(context_.get())) {
    llama_memory_clear(memory, /*data=*/false);
  }
}

Status LlamaEmbedder::step(EmbedJob& job) {
  const bool is_long =
      job.inputs[job.vectors.size()].size() > static_cast<size_t>(step_tokens_);
  Status status = guard_llama(StatusCode::kGenerationFailed, [&]() -> Status {
    return is_long && !takes_whole_ ? step_chunk(job) : step_whole_inputs(job);
  });
  if (!status.ok()) clear_memory();
  return status;
}

// As many of the next inputs as a step takes; one at least.
Status LlamaEmbedder::step_whole_inputs(EmbedJob& job) {
  batch_.n_tokens = 0;
  const size_t first = job.vectors.size();
  const size_t most = llama_n_seq_max(context_.get());
  size_t count = 0;
  while (first + count < job.inputs.size() && count < most) {
    const auto& input = job.inputs[first + count];
    const auto num_tokens = static_cast<int32_t>(input.size());
    if (count > 0 && batch_.n_tokens + num_tokens > step_tokens_) break;
    append(input, 0, num_tokens, static_cast<int32_t>(count));
    ++count;
  }
  if (Status status = compute(); !status.ok()) return status;
  int32_t row = 0;
  for (size_t i = 0; i < count; ++i) {
    const auto num_tokens = static_cast<int32_t>(job.inputs[first + i].size());
    if (llama_pooling_type(context_.get()) == LLAMA_POOLING_TYPE_NONE) {
      auto pooled = pool_rows(row, num_tokens, job.pooling == Pooling::kLast);
      if (!pooled.ok()) return pooled.status();
      job.vectors.push_back(std::move(pooled).value());
    } else {
      const float* vector = llama_get_embeddings_seq(context_.get(), static_cast<int32_t>(i));
      if (vector == nullptr) return {StatusCode::kGenerationFailed, "the model has no embeddings"};
      job.vectors.emplace_back(vector, vector + model_->info().embedding_size);
    }
    row += num_tokens;
  }
  clear_memory();
  return {};
}

Status LlamaEmbedder::step_chunk(EmbedJob& job) {
  batch_.n_tokens = 0;
  const auto& input = job.inputs[job.vectors.size()];
  const auto num_tokens = static_cast<int32_t>(input.size());
  const int32_t end = std::min(job.num_computed + step_tokens_, num_tokens);
  const bool last_only = job.pooling == Pooling::kLast;
  append(input, job.num_computed, end, 0);
  if (Status status = compute(); !status.ok()) return status;
  auto pooled = pool_rows(0, batch_.n_tokens, last_only);
  if (!pooled.ok()) return pooled.status();
  Embedding vector = std::move(pooled).value();
  if (!last_only) {
    job.sum.resize(vector.size());
    for (size_t i = 0; i < vector.size(); ++i) {
      job.sum[i] += static_cast<double>(vector[i]) * batch_.n_tokens;
    }
  }
  job.num_computed = end;
  if (end < num_tokens) return {};
  if (!last_only) {
    for (size_t i = 0; i < vector.size(); ++i) {
      vector[i] = static_cast<float>(job.sum[i] / num_tokens);
    }
  }
  job.vectors.push_back(std::move(vector));
  job.num_computed = 0;
  job.sum.clear();
  clear_memory();
  return {};
}

Result<Embedding> LlamaEmbedder::pool_rows(int32_t first, int32_t count, bool last_only) const {
  const auto size = static_cast<size_t>(model_->info().embedding_size);
  std::vector<double> sum(size);
  const int32_t begin = last_only ? first + count - 1 : first;
  for (int32_t row = begin; row < first + count; ++row) {
    const float* vector = llama_get_embeddings_ith(context_.get(), row);
    if (vector == nullptr) {
      return Status(StatusCode::kGenerationFailed, "the model has no embeddings");
    }
    for (size_t i = 0; i < size; ++i) sum[i] += vector[i];
  }
  Embedding pooled(size);
  const int32_t num_rows = first + count - begin;
  for (size_t i = 0; i < size; ++i) pooled[i] = static_cast<float>(sum[i] / num_rows);
  return pooled;
}

}  // namespace snapllm
