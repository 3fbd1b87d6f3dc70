// How the columns of a product of matrices are cut into shares.
#pragma once

#include <algorithm>
#include <cstdint>

namespace snapllm {

struct ColumnShare {
  int32_t first;
  int32_t last;
};

// Share number `share` of `num_shares`: whole blocks of `block` columns, but for the last.
inline ColumnShare column_share(int32_t num_columns, int32_t block, int share, int num_shares) {
  const int64_t num_blocks = (num_columns + block - 1) / block;
  const auto column_at = [&](int64_t index) {
    return static_cast<int32_t>(
        std::min<int64_t>(num_blocks * index / num_shares * block, num_columns));
  };
  return {column_at(share), column_at(share + 1)};
}

}  // namespace snapllm
