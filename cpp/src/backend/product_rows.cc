#include "backend/product_rows.h"

#include "ggml-cpu.h"

namespace snapllm {
namespace {

ggml_type quantized_type(const ggml_tensor* op) {
  return ggml_get_type_traits_cpu(op->src[0]->type)->vec_dot_type;
}

}  // namespace

bool has_plain_operands(const ggml_tensor* op) {
  const ggml_tensor* weights = op->src[0];
  const ggml_tensor* x = op->src[1];
  return x->type == GGML_TYPE_F32 && op->type == GGML_TYPE_F32 &&
         weights->nb[0] == ggml_type_size(weights->type) && weights->extra == nullptr &&
         x->nb[0] == sizeof(float) && op->nb[0] == sizeof(float) && x->ne[1] <= INT32_MAX &&
         weights->ne[1] <= INT32_MAX;
}

int32_t num_blocks_of(const ggml_tensor* weights) {
  return static_cast<int32_t>(weights->ne[0] / ggml_blck_size(weights->type));
}

std::byte* matrix_of(const ggml_tensor* tensor, int64_t i2, int64_t i3) {
  return static_cast<std::byte*>(tensor->data) + static_cast<size_t>(i2) * tensor->nb[2] +
         static_cast<size_t>(i3) * tensor->nb[3];
}

const float* row_of(const ggml_tensor* tensor, int64_t row) {
  const int64_t i1 = row % tensor->ne[1];
  const int64_t i2 = row / tensor->ne[1] % tensor->ne[2];
  const int64_t i3 = row / tensor->ne[1] / tensor->ne[2];
  return reinterpret_cast<const float*>(matrix_of(tensor, i2, i3) +
                                        static_cast<size_t>(i1) * tensor->nb[1]);
}

BlockShare::BlockShare(const ggml_compute_params* params, int64_t num_blocks)
    : begin(num_blocks * params->ith / params->nth),
      end(num_blocks * (params->ith + 1) / params->nth) {}

size_t quantized_row_bytes(const ggml_tensor* op) {
  return ggml_row_size(quantized_type(op), op->src[1]->ne[0]);
}

void quantize_rows(const ggml_compute_params* params, const ggml_tensor* op) {
  const ggml_type type = quantized_type(op);
  const auto from_float = ggml_get_type_traits_cpu(type)->from_float;
  const int64_t size = ggml_blck_size(type);
  const BlockShare share(params, num_blocks_of(op->src[0]));
  auto* to = static_cast<std::byte*>(params->wdata) + ggml_row_size(type, share.begin * size);
  for (int64_t row = 0; row < ggml_nrows(op->src[1]); ++row, to += quantized_row_bytes(op)) {
    from_float(row_of(op->src[1], row) + share.begin * size, to, (share.end - share.begin) * size);
  }
}

}  // namespace snapllm
