// The columns of a product of matrices as work that helpers take shares of.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/column_share.h"
#include "kernels/helpers.h"

namespace snapllm {

// `kMultiply(args, share, num_shares, scratch)` computes a share of the columns of `Args`, which has
// the fields that those of all our products have: weights, out, their strides, and numbers of rows and
// columns. A share is whole blocks of columns.
template <typename Args, auto kMultiply, int32_t kBlockColumns>
struct ColumnWork {
  Args args;
  int num_shares = 1;
  size_t scratch_bytes = 0;      // that each thread wants, a multiple of 64
  std::byte* scratch = nullptr;  // of the thread that is helped

  // Shares that a product of so many multiply-adds is worth; 1 = let nobody help.
  static int shares_for(double cost, int32_t num_columns, int num_helpers) {
    constexpr double kMinCost = 1 << 18;  // of a share, next to which taking it is nothing
    constexpr int kSharesPerThread = 16;
    const int32_t num_blocks = (num_columns + kBlockColumns - 1) / kBlockColumns;
    const int most =
        std::min({num_blocks, kSharesPerThread * (1 + num_helpers), Helpers::kMaxShares});
    return static_cast<int>(std::clamp(cost / kMinCost, 1.0, static_cast<double>(most)));
  }

  void compute(int share) const {
    const ColumnShare columns = columns_of(share);
    multiply(columns, args.out + columns.first, args.out_stride, scratch);
  }

  size_t apart_bytes(int share) const {
    return scratch_bytes + row_bytes(columns_of(share)) * static_cast<size_t>(args.num_rows);
  }

  // Block by block, so that it ends soon after the share was taken back.
  void compute_apart(int share, std::byte* out, const Helpers::Claim& claim) const {
    const ColumnShare columns = columns_of(share);
    auto* result = reinterpret_cast<float*>(out + scratch_bytes);
    for (int32_t first = columns.first; first < columns.last && claim.holds();
         first += kBlockColumns) {
      const ColumnShare block = {first, std::min(first + kBlockColumns, columns.last)};
      multiply(block, result + (first - columns.first), row_bytes(columns), out);
    }
  }

  void put(int share, const std::byte* out) const {
    const ColumnShare columns = columns_of(share);
    const size_t num_bytes = row_bytes(columns);
    auto* to = reinterpret_cast<std::byte*>(args.out + columns.first);
    const std::byte* from = out + scratch_bytes;
    for (int32_t row = 0; row < args.num_rows; ++row) {
      std::memcpy(to, from, num_bytes);
      to += args.out_stride;
      from += num_bytes;
    }
  }

 private:
  ColumnShare columns_of(int share) const {
    return column_share(args.num_columns, kBlockColumns, share, num_shares);
  }

  static size_t row_bytes(const ColumnShare& columns) {
    return sizeof(float) * static_cast<size_t>(columns.last - columns.first);
  }

  void multiply(const ColumnShare& columns, float* out, size_t stride, std::byte* own) const {
    Args part = args;
    part.weights += part.weights_stride * static_cast<size_t>(columns.first);
    part.num_columns = columns.last - columns.first;
    part.out = out;
    part.out_stride = stride;
    kMultiply(part, 0, 1, own);
  }
};

}  // namespace snapllm
