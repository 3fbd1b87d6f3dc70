// Attention on a CPU over a KV memory that many sequences share.
//
// Softmax is computed online over spans of cells, as flash attention does (Dao et al.,
// 2022, arXiv:2205.14135), in 32-bit floats. What a query gets depends only on its own
// numbers and on the keys and values of the cells that it attends to, in the order in which they
// were written: not on the queries beside it, on where in the memory its cells lie, on
// hidden cells between them, or on the number of threads. So a token has bit for bit the
// same result in a batch and alone, computed at once or after a restored prefix. Hidden
// cells cost next to nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cell_order.h"
#include "kernels/team.h"

namespace snapllm {

struct AttentionShape {
  int32_t key_size = 0;    // of one head; a multiple of the vector width
  int32_t value_size = 0;  // likewise
  int32_t num_queries = 0;
  int32_t num_heads = 0;  // a multiple of num_kv_heads
  int32_t num_kv_heads = 0;
  int32_t num_cells = 0;
  int32_t num_batches = 1;  // KV memories, each with its own queries
};

// Numbers of one row are contiguous; strides between rows are in bytes.
struct AttentionTensor {
  const std::byte* data = nullptr;
  size_t row_stride = 0;  // to the next query or cell
  size_t head_stride = 0;
  size_t batch_stride = 0;
};

struct AttentionArgs {
  AttentionShape shape;
  AttentionTensor q;     // binary32
  AttentionTensor k, v;  // binary16, rows are cells
  // binary16, a row for each query with a number for each cell: minus infinity hides the
  // cell, anything else is added to the score. No data: every cell is visible. One for
  // all heads.
  AttentionTensor mask;
  CellOrder order;  // for one batch only
  const float* sinks = nullptr;  // for each head a score that takes part without a value
  float scale = 1.0F;
  float softcap = 0.0F;   // limits scores to +-softcap by tanh where it is not 0
  float max_bias = 0.0F;  // ALiBi (arXiv:2108.12409): biases times a slope for each head
  float* out = nullptr;   // [batch][query][head][value_size]
};

// Whether the sizes are ones that `attend` takes.
bool can_attend(const AttentionShape& shape);

// Bytes of scratch that `attend` wants for all threads together.
size_t attention_scratch_bytes(const AttentionShape& shape, int num_threads);

// What comes to one thread of the team; `scratch` is one area for all of them.
void attend(const AttentionArgs& args, const Team& team, std::byte* scratch);

}  // namespace snapllm
