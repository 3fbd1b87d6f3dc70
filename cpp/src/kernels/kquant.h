// Products of a few rows of activations with a matrix of K-quants (Q2_K to Q6_K, IQ4_XS), and of
// any number of rows with one of IQ4_NL.
//
// llama.cpp computes many rows by another kernel than a few, with other sums, so that a token
// differs alone and in a batch. Both add exact integers up within a block of 256 numbers; this
// one then does with floats what the kernel for many rows (ggml's "tiled") does, so that both
// give the same bits. That kernel does not know IQ4_NL. Formats: ggml-common.h, block_q2_K to
// block_q6_K, block_iq4_xs, block_iq4_nl, block_q8_K, block_q8_0.
#pragma once

#include <cstddef>
#include <cstdint>

namespace snapllm {

enum class KQuantType { kQ2K, kQ3K, kQ4K, kQ5K, kQ6K, kIq4Xs, kIq4Nl };

// Rows of blocks; the stride from one to the next is in bytes.
struct KQuantArgs {
  const std::byte* weights = nullptr;  // [num_columns][num_blocks]
  size_t weights_stride = 0;
  KQuantType type = KQuantType::kQ4K;
  const std::byte* x = nullptr;  // block_q8_K, of kIq4Nl block_q8_0, [num_rows][num_blocks]
  size_t x_stride = 0;
  float* out = nullptr;  // [num_rows][num_columns]
  size_t out_stride = 0;
  int32_t num_blocks = 0;
  int32_t num_rows = 0;
  int32_t num_columns = 0;
};

// Whether this build has the kernel; it needs AVX2, and is faster with AVX-512 VNNI.
bool has_kquant_kernel();

// Share number `share` of `num_shares` of the columns.
// REQUIRES: has_kquant_kernel()
void multiply_kquant(const KQuantArgs& args, int share, int num_shares);

}  // namespace snapllm
