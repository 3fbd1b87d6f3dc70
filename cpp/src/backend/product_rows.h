// The rows of ggml's products of matrices: where they lie, and as quantized weights want them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ggml.h"
#include "traits.h"

namespace snapllm {

// Whether it has floats times weights that lie as they do in the file.
bool has_plain_operands(const ggml_tensor* op);

// Blocks of a row of weights.
int32_t num_blocks_of(const ggml_tensor* weights);

// Where matrix (i2, i3) of a tensor begins.
std::byte* matrix_of(const ggml_tensor* tensor, int64_t i2, int64_t i3);

// Row number `row` of all of a tensor's rows.
const float* row_of(const ggml_tensor* tensor, int64_t row);

// The blocks of each row that are this thread's to quantize.
struct BlockShare {
  int64_t begin;
  int64_t end;

  BlockShare(const ggml_compute_params* params, int64_t num_blocks);
};

// Bytes of a row of the product's floats, quantized as ggml's kernels for its weights take it.
size_t quantized_row_bytes(const ggml_tensor* op);

// Writes this thread's share of all rows, one behind the other, to where params->wdata begins.
void quantize_rows(const ggml_compute_params* params, const ggml_tensor* op);

}  // namespace snapllm
