#include "backend/expert_products.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "backend/cpu_products.h"
#include "backend/product_rows.h"
#include "ggml-cpu.h"
#include "kernels/kquant.h"
#include "tiled/tiled.h"

namespace snapllm {
namespace {

constexpr size_t kAlignment = 64;

size_t aligned(size_t num_bytes) { return (num_bytes + kAlignment - 1) / kAlignment * kAlignment; }

// A row that is routed to an expert, as ggml's kernel takes it: which of its token's experts, and
// the token.
struct Routed {
  int32_t choice;
  int32_t token;
};

// What is where in the memory of an operation.
struct Layout {
  size_t ends;    // of each expert's rows in the list of all: one int32 each
  size_t routed;  // all rows, by expert
  size_t scratch;

  explicit Layout(const ggml_tensor* op) {
    const auto size = [](int64_t n) { return static_cast<size_t>(n); };
    ends = aligned(quantized_row_bytes(op) * size(ggml_nrows(op->src[1])));
    routed = ends + aligned(size(op->src[0]->ne[2]) * sizeof(int32_t));
    scratch = routed + aligned(size(ggml_nelements(op->src[2])) * sizeof(Routed));
  }
};

// Lists the rows of each expert; `ends` has the end of each expert's.
void group_by_expert(const ggml_tensor* ids, std::span<int32_t> ends, Routed* routed) {
  const auto expert_of = [ids](int32_t choice, int32_t token) -> size_t {
    const auto* at = static_cast<const std::byte*>(ids->data) +
                     static_cast<size_t>(choice) * ids->nb[0] +
                     static_cast<size_t>(token) * ids->nb[1];
    return static_cast<size_t>(*reinterpret_cast<const int32_t*>(at));
  };
  const auto num_choices = static_cast<int32_t>(ids->ne[0]);
  const auto num_tokens = static_cast<int32_t>(ids->ne[1]);
  std::ranges::fill(ends, 0);
  for (int32_t token = 0; token < num_tokens; ++token) {
    for (int32_t choice = 0; choice < num_choices; ++choice) ++ends[expert_of(choice, token)];
  }
  // Where each begins, at first; which adding its rows makes its end.
  std::exclusive_scan(ends.begin(), ends.end(), ends.begin(), 0);
  for (int32_t token = 0; token < num_tokens; ++token) {
    for (int32_t choice = 0; choice < num_choices; ++choice) {
      routed[ends[expert_of(choice, token)]++] = {choice, token};
    }
  }
}

class KQuantExperts final : public ggml::cpu::tensor_traits {
 public:
  bool work_size(int num_threads, const ggml_tensor* op, size_t& size) override {
    // ggml asks for the tensor it would compute, and changes nothing of it.
    size = kAlignment + Layout(op).scratch +
           ggml_tiled_wdata_size(num_threads, const_cast<ggml_tensor*>(op));
    return true;
  }

  bool compute_forward(ggml_compute_params* params, ggml_tensor* op) override {
    const Layout layout(op);
    auto* memory = static_cast<std::byte*>(params->wdata);
    const auto num_experts = static_cast<size_t>(op->src[0]->ne[2]);
    const std::span<int32_t> ends(reinterpret_cast<int32_t*>(memory + layout.ends), num_experts);
    auto* routed = reinterpret_cast<Routed*>(memory + layout.routed);
    const auto scratch_at = reinterpret_cast<uintptr_t>(memory + layout.scratch);
    auto* scratch = reinterpret_cast<char*>(aligned(scratch_at));
    quantize_rows(params, op);
    if (params->ith == 0) group_by_expert(op->src[2], ends, routed);
    ggml_barrier(params->threadpool);
    int32_t begin = 0;
    for (size_t expert = 0; expert < num_experts; ++expert) {
      const std::span rows(routed + begin, static_cast<size_t>(ends[expert] - begin));
      begin = ends[expert];
      if (rows.empty()) continue;
      // It takes experts of many rows only.
      if (ggml_compute_forward_mul_mat_id_tiled(
              params, op, static_cast<int64_t>(expert), static_cast<int64_t>(rows.size()),
              &rows.front().choice, scratch)) {
        continue;
      }
      for (const Routed& row : rows) multiply(params, op, expert, row);
    }
    return true;
  }

 private:
  static void multiply(const ggml_compute_params* params, const ggml_tensor* op, size_t expert,
                       Routed row) {
    const ggml_tensor* weights = op->src[0];
    const ggml_tensor* x = op->src[1];
    KQuantArgs args;
    args.weights = matrix_of(weights, static_cast<int64_t>(expert), 0);
    args.weights_stride = weights->nb[1];
    args.type = *kquant_type_of(weights->type);
    const int64_t x_row = row.choice % x->ne[1] + row.token * x->ne[1];
    args.x = static_cast<const std::byte*>(params->wdata) +
             static_cast<size_t>(x_row) * quantized_row_bytes(op);
    args.out = reinterpret_cast<float*>(matrix_of(op, row.token, 0) +
                                        static_cast<size_t>(row.choice) * op->nb[1]);
    args.num_blocks = num_blocks_of(weights);
    args.num_rows = 1;
    args.num_columns = static_cast<int32_t>(weights->ne[1]);
    multiply_kquant(args, params->ith, params->nth);
  }
};

}  // namespace

ggml::cpu::tensor_traits* expert_product_kernel(const ggml_tensor* op) {
  static KQuantExperts kquant_experts;
  const ggml_type type = op->src[0]->type;
  const bool is_tiled_kquant = kquant_type_of(type).has_value() && type != GGML_TYPE_IQ4_NL;
  if (!is_tiled_kquant || !has_product_kernel(type)) return nullptr;
  return has_plain_operands(op) ? &kquant_experts : nullptr;
}

}  // namespace snapllm
