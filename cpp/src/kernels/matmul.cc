#include "kernels/matmul.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/column_share.h"
#include "kernels/dot_block.h"

namespace snapllm {
namespace {

// Rows that are computed together, and columns with them: as many sums as there are registers for beside
// what is multiplied. With fewer sums each product waits for the one before.
constexpr int kMostRows = kLanes == 8 ? 6 : 4;
constexpr int columns_at_once(int num_rows) { return num_rows == 6 ? 2 : kLanes / num_rows; }
// Rows that are multiplied with the same weights before the next weights: few enough to
// stay in the cache beside them.
constexpr int32_t kTileRows = kLanes == 8 ? 24 : 32;
// Of rows of weights that have no more bytes, those that are needed next are asked for ahead: a few
// short rows, read side by side, are no stream that a core fetches by itself.
constexpr size_t kMaxAskedRow = 2048;
constexpr size_t kCacheLine = 64;

template <typename Number>
class Product {
 public:
  explicit Product(const MatmulArgs& args) : args_(args) {}

  // Columns [first, last) of all rows.
  void compute(int32_t first, int32_t last) const {
    for (int32_t row = 0; row < args_.num_rows; row += kTileRows) {
      const int32_t end = std::min(row + kTileRows, args_.num_rows);
      for (int32_t column = first; column < last; column += kLanes) {
        const Number* weights[kLanes];
        for (int i = 0; i < kLanes; ++i) weights[i] = weights_of(std::min(column + i, last - 1));
        compute_block(row, end, column, std::min<int32_t>(kLanes, last - column), weights);
      }
    }
  }

 private:
  const Number* weights_of(int32_t column) const {
    return reinterpret_cast<const Number*>(args_.weights +
                                           args_.weights_stride * static_cast<size_t>(column));
  }

  const float* x_of(int32_t row) const {
    return reinterpret_cast<const float*>(args_.x + args_.x_stride * static_cast<size_t>(row));
  }

  // Rows [row, end) of `num_columns` columns.
  void compute_block(int32_t row, int32_t end, int32_t column, int32_t num_columns,
                     const Number* const* weights) const {
    bool asks_ahead = sizeof(Number) * static_cast<size_t>(args_.size) <= kMaxAskedRow;
    const auto compute = [&]<int kRows>() {
      if (std::exchange(asks_ahead, false)) {
        compute_rows<kRows, true>(row, column, num_columns, weights);
      } else {
        compute_rows<kRows, false>(row, column, num_columns, weights);
      }
      row += kRows;
    };
    while (row + kMostRows <= end) compute.template operator()<kMostRows>();
    if (row + 4 <= end) compute.template operator()<4>();
    if (row + 2 <= end) compute.template operator()<2>();
    if (row < end) compute.template operator()<1>();
  }

  template <int kRows, bool kAsksAhead>
  void compute_rows(int32_t row, int32_t column, int32_t num_columns,
                    const Number* const* weights) const {
    constexpr int kColumns = columns_at_once(kRows);
    Vec sums[kRows * kLanes];
    for (int c = 0; c < kLanes; c += kColumns) {
      const auto compute = [&](const auto& ask_ahead) {
        sum_products<kRows, kColumns>(x_of(row), args_.x_stride / sizeof(float), weights + c,
                                      args_.size, sums + c, kLanes, ask_ahead);
      };
      if constexpr (kAsksAhead) {
        compute(NextColumns<kColumns>{args_.weights + args_.weights_stride *
                                                          static_cast<size_t>(column + kLanes + c)});
      } else {
        compute(NothingAhead());
      }
    }
    for (int r = 0; r < kRows; ++r) {
      float products[kLanes];
      simd::store(products, simd::sums_of_lanes(sums + r * kLanes));
      put(row + r, column, num_columns, products);
    }
  }

  // Asks for as much of the next columns as is computed with in a step, one after the other, as they
  // mostly lie. It reads nothing: where they lie elsewhere or are none, no harm is done.
  template <int kColumns>
  struct NextColumns {
    const std::byte* weights;

    void operator()(int32_t d) const {
      constexpr size_t kStep = kColumns * kLanes * sizeof(Number);
      const size_t at = kColumns * sizeof(Number) * static_cast<size_t>(d);
      if (kStep < kCacheLine && at % kCacheLine != 0) return;
      for (size_t i = 0; i < kStep; i += kCacheLine) {
        __builtin_prefetch(weights + at + i, /*rw=*/0, /*locality=*/2);
      }
    }
  };

  void put(int32_t row, int32_t column, int32_t num_columns, const float* numbers) const {
    float* out = reinterpret_cast<float*>(reinterpret_cast<std::byte*>(args_.out) +
                                          args_.out_stride * static_cast<size_t>(row));
    std::memcpy(out + column, numbers, static_cast<size_t>(num_columns) * sizeof(float));
  }

  const MatmulArgs& args_;
};

}  // namespace

bool can_multiply(int64_t size) { return size > 0 && size % kLanes == 0; }

void multiply(const MatmulArgs& args, int share, int num_shares) {
  const auto [first, last] = column_share(args.num_columns, kLanes, share, num_shares);
  switch (args.weights_type) {
    case NumberType::kFloat: return Product<float>(args).compute(first, last);
    case NumberType::kHalf: return Product<uint16_t>(args).compute(first, last);
    case NumberType::kBfloat16: return Product<Bfloat16>(args).compute(first, last);
  }
}

}  // namespace snapllm
