// Products of activations with a matrix of weights that are not quantized.
//
// Each number of the result depends on its two rows alone, not on how many rows are
// multiplied at once: a token has bit for bit the same result in a batch and alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace snapllm {

enum class NumberType { kFloat, kHalf, kBfloat16 };

// Rows of contiguous numbers; the stride from one to the next is in bytes.
struct MatmulArgs {
  const std::byte* weights = nullptr;  // [num_columns][size]
  size_t weights_stride = 0;
  NumberType weights_type = NumberType::kFloat;
  const std::byte* x = nullptr;  // binary32, [num_rows][size]
  size_t x_stride = 0;
  float* out = nullptr;  // [num_rows][num_columns]
  size_t out_stride = 0;
  int32_t size = 0;  // a multiple of the vector width
  int32_t num_rows = 0;
  int32_t num_columns = 0;
};

// Whether rows of so many numbers are ones that `multiply` takes.
bool can_multiply(int64_t size);

// Share number `share` of `num_shares` of the columns.
void multiply(const MatmulArgs& args, int share, int num_shares);

}  // namespace snapllm
