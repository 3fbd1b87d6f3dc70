// Products of rows of activations with a matrix of Q4_0 weights, as they lie in the file.
//
// Exact integers are added up within a block of 32 numbers; blocks are then added up in their
// order, whatever the number of rows: a row has the same bits alone and beside others. What is
// done with floats is what llama.cpp's kernels for reordered Q4_0 do. Formats: ggml-common.h,
// block_q4_0, block_q8_0.
#pragma once

#include <cstddef>
#include <cstdint>

namespace snapllm {

// Rows lie `stride` bytes apart.
struct Q40Args {
  const std::byte* weights = nullptr;  // block_q4_0, [num_columns][num_blocks]
  size_t weights_stride = 0;
  const std::byte* x = nullptr;  // as prepare_q40_blocks leaves them, [num_rows]
  float* out = nullptr;          // [num_rows][num_columns]
  size_t out_stride = 0;
  int32_t num_blocks = 0;
  int32_t num_rows = 0;
  int32_t num_columns = 0;
};

// Whether this build has the kernel; it needs AVX2, and is faster with AVX-512 VNNI.
bool has_q40_kernel();

// The bytes of a row of activations, a multiple of 64.
size_t q40_row_bytes(int32_t num_blocks);

// The bytes that each thread needs beside, a multiple of 64.
size_t q40_scratch_bytes(int32_t num_blocks);

// Makes blocks [begin, end) of a row of activations from blocks of block_q8_0.
void prepare_q40_blocks(const std::byte* from, int32_t begin, int32_t end, std::byte* row);

// Share number `share` of `num_shares` of the columns. Threads that compute some at once have
// scratch of their own.
// REQUIRES: has_q40_kernel()
void multiply_q40(const Q40Args& args, int share, int num_shares, std::byte* scratch);

}  // namespace snapllm
