// How the columns of a product of matrices are shared out among threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace snapllm {

struct ColumnShare {
  int32_t first;
  int32_t last;
};

// The share of thread `thread` of `num_threads`: whole blocks of `block` columns, but for the last.
inline ColumnShare column_share(int32_t num_columns, int32_t block, int thread, int num_threads) {
  const int64_t num_blocks = (num_columns + block - 1) / block;
  const auto column_at = [&](int64_t share) {
    return static_cast<int32_t>(
        std::min<int64_t>(num_blocks * share / num_threads * block, num_columns));
  };
  return {column_at(thread), column_at(thread + 1)};
}

}  // namespace snapllm
