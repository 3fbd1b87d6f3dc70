#include "backend/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace snapllm {
namespace {

// Context of a model whose file does not say what it was trained for.
constexpr int32_t kUnknownTrainContext = 4096;
constexpr int32_t kMinContext = 512;
// Cells for several short conversations beside each other, where the model's own
// context is short.
constexpr int32_t kSharedCells = 16384;
constexpr int32_t kSharedContexts = 4;
// Part of what automatic sizes may take, on a GPU.
constexpr double kGpuSharedPart = 0.125;
constexpr int32_t kCellGranularity = 256;
// Part of the memory left after the weights that automatic sizes may take: the
// rest is for the next model.
constexpr double kKvShare = 0.5;
// Compute buffers, logits and the allocator's slack.
constexpr uint64_t kOverheadBytes = uint64_t{64} << 20;

int32_t round_up(int64_t tokens) {
  return static_cast<int32_t>((tokens + kCellGranularity - 1) / kCellGranularity *
                              kCellGranularity);
}

std::string megabytes(uint64_t bytes) { return std::to_string((bytes + 999'999) / 1'000'000) + " MB"; }

// Attention scores of a physical batch are buffered for each cell, in full by the plain
// kernels, and as a mask only by flash attention.
double buffer_bytes_per_cell(const GgufHeader& header, const ModelOptions& options) {
  const double mask_bytes = 4.0 * options.ubatch_tokens;
  const bool is_flash = options.flash_attention == FlashAttention::kOn || options.kv_type == "q8_0";
  return is_flash ? mask_bytes : mask_bytes + mask_bytes * header.num_heads;
}

// The most cells automatic sizing may take.
int64_t affordable_cells(uint64_t free_bytes, double bytes_per_cell) {
  if (bytes_per_cell <= 0.0) return INT32_MAX - kCellGranularity;
  const double cells = kKvShare * static_cast<double>(free_bytes) / bytes_per_cell;
  return static_cast<int64_t>(std::min<double>(cells, INT32_MAX - kCellGranularity));
}

}  // namespace

double kv_element_bytes(const std::string& kv_type) {
  if (kv_type == "f32") return 4.0;
  if (kv_type == "f16") return 2.0;
  if (kv_type == "q8_0") return 34.0 / 32.0;  // 32 values and their scale
  return 0.0;
}

Result<MemoryPlan> plan_memory(const GgufHeader& header, const ModelOptions& options,
                               uint64_t max_bytes, uint64_t projector_bytes, bool is_on_gpu) {
  const double bytes_per_token =
      static_cast<double>(header.kv_elements_per_token) * kv_element_bytes(options.kv_type);
  const double buffer_per_cell = bytes_per_token > 0.0 ? buffer_bytes_per_cell(header, options) : 0.0;
  const int32_t train_context =
      header.train_context_size > 0 ? header.train_context_size : kUnknownTrainContext;

  MemoryPlan plan;
  plan.weights_bytes = header.file_bytes;
  plan.projector_bytes = projector_bytes;
  const int32_t num_states =
      std::min(options.max_sequences, kMaxRecurrentSequences) + kHotCheckpoints;
  const double states = static_cast<double>(header.state_bytes) * num_states;
  const auto state_bytes = static_cast<uint64_t>(std::min(states, 1e18));
  const uint64_t fixed_bytes =
      plan.weights_bytes + projector_bytes + state_bytes + kOverheadBytes;
  const uint64_t free_bytes = max_bytes > fixed_bytes ? max_bytes - fixed_bytes : 0;
  const int64_t affordable =
      std::max<int64_t>(affordable_cells(free_bytes, bytes_per_token + buffer_per_cell), kMinContext);

  if (options.context_size > 0) {
    plan.context_size = options.context_size;
  } else {
    const int64_t limit = options.kv_cells > 0 ? options.kv_cells : affordable;
    plan.context_size = static_cast<int32_t>(std::min<int64_t>(train_context, limit));
  }
  int64_t shared_cells = kSharedCells;
  int64_t num_contexts = kSharedContexts;
  if (is_on_gpu) {
    const double part = kGpuSharedPart * static_cast<double>(affordable);
    shared_cells = std::max(shared_cells, static_cast<int64_t>(part));
    num_contexts = options.max_sequences;
  }
  const int64_t cells =
      options.kv_cells > 0
          ? options.kv_cells
          : std::max<int64_t>(plan.context_size,
                              std::min({shared_cells, affordable,
                                        num_contexts * plan.context_size}));
  plan.kv_cells = round_up(std::max<int64_t>(cells, plan.context_size));
  plan.kv_bytes = static_cast<uint64_t>(std::ceil(bytes_per_token * plan.kv_cells));
  const auto buffer_bytes = static_cast<uint64_t>(std::ceil(buffer_per_cell * plan.kv_cells));
  plan.total_bytes = fixed_bytes + plan.kv_bytes + buffer_bytes;
  if (plan.total_bytes > max_bytes) {
    return Status(StatusCode::kOutOfMemory,
                  "the model needs about " + megabytes(plan.total_bytes) + " (weights " +
                      megabytes(plan.weights_bytes) +
                      (state_bytes > 0 ? ", states " + megabytes(state_bytes) : "") +
                      (projector_bytes > 0 ? ", projector " + megabytes(projector_bytes) : "") +
                      ", KV memory of " +
                      std::to_string(plan.kv_cells) + " tokens " + megabytes(plan.kv_bytes) +
                      ", buffers " + megabytes(kOverheadBytes + buffer_bytes) + ") but " + megabytes(max_bytes) +
                      " are free");
  }
  return plan;
}

}  // namespace snapllm
