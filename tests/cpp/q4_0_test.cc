#include "kernels/q4_0.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/column_work.h"
#include "kernels/simd.h"

namespace snapllm {
namespace {

constexpr int32_t kNumBlocks = 5;
constexpr int32_t kNumColumns = 77;
constexpr size_t kWeightBytes = 18;
constexpr size_t kActivationBytes = 34;

std::mt19937& random_bits() {
  static std::mt19937 random(1);
  return random;
}

// Blocks whose first two bytes are a scale of about 2^-7, and whose others are any.
std::vector<std::byte> make_blocks(size_t count, size_t bytes) {
  std::vector<std::byte> blocks(count * bytes);
  for (std::byte& byte : blocks) byte = static_cast<std::byte>(random_bits()());
  for (size_t at = 0; at < blocks.size(); at += bytes) {
    const auto half = static_cast<uint16_t>(0x2000 + random_bits()() % 0x400);
    std::memcpy(&blocks[at], &half, sizeof(half));
  }
  return blocks;
}

// Of numbers from -127 to 127, as a quantized row has them.
std::vector<std::byte> make_activations(int32_t num_rows) {
  const auto count = static_cast<size_t>(num_rows * kNumBlocks);
  std::vector<std::byte> blocks = make_blocks(count, kActivationBytes);
  for (size_t i = 0; i < blocks.size(); ++i) {
    const bool is_number = i % kActivationBytes >= sizeof(uint16_t);
    if (is_number && blocks[i] == std::byte{0x80}) blocks[i] = std::byte{0x81};
  }
  return blocks;
}

double scale_of(const std::byte* block) {
  uint16_t half;
  std::memcpy(&half, block, sizeof(half));
  return static_cast<double>(simd::half_to_float(half));
}

// The products of the numbers that the formats mean, one by one.
double product_of(const std::byte* weights, const std::byte* x, double& size) {
  double sum = 0.0;
  for (int32_t block = 0; block < kNumBlocks; ++block) {
    for (size_t i = 0; i < 32; ++i) {
      const auto byte = static_cast<int>(weights[2 + i % 16]);
      const int weight = (i < 16 ? byte & 15 : byte >> 4) - 8;
      const double product = scale_of(weights) * weight * scale_of(x) * static_cast<int8_t>(x[2 + i]);
      sum += product;
      size += std::abs(product);
    }
    weights += kWeightBytes;
    x += kActivationBytes;
  }
  return sum;
}

// Vectors are loaded from whole lines of the cache.
struct alignas(64) Line {
  std::byte bytes[64];
};

std::vector<float> multiply_rows(const std::vector<std::byte>& weights, const std::byte* x,
                                 int32_t num_rows, int num_threads,
                                 Helpers* helpers = nullptr) {
  std::vector<float> out(static_cast<size_t>(num_rows * kNumColumns), NAN);
  std::vector<Line> rows(static_cast<size_t>(num_rows) * q40_row_bytes(kNumBlocks) / sizeof(Line));
  std::vector<Line> scratch(q40_scratch_bytes(kNumBlocks) / sizeof(Line));
  for (int32_t row = 0; row < num_rows; ++row) {
    prepare_q40_blocks(x + static_cast<size_t>(row * kNumBlocks) * kActivationBytes, 0, kNumBlocks,
                       rows.data()->bytes + static_cast<size_t>(row) * q40_row_bytes(kNumBlocks));
  }
  Q40Args args;
  args.weights = weights.data();
  args.weights_stride = kNumBlocks * kWeightBytes;
  args.x = rows.data()->bytes;
  args.out = out.data();
  args.out_stride = kNumColumns * sizeof(float);
  args.num_blocks = kNumBlocks;
  args.num_rows = num_rows;
  args.num_columns = kNumColumns;
  if (helpers != nullptr) {
    using Work = ColumnWork<Q40Args, &multiply_q40, 32>;
    const Helpers::Scope scope(*helpers);
    helpers->run(Work{args, 3, q40_scratch_bytes(kNumBlocks), scratch.data()->bytes}, 3);
    return out;
  }
  for (int thread = 0; thread < num_threads; ++thread) {
    multiply_q40(args, thread, num_threads, scratch.data()->bytes);
  }
  return out;
}

TEST(q4_0, products_are_those_of_the_numbers_that_the_formats_mean) {
  if (!has_q40_kernel()) SKIP("the kernel needs AVX2");
  const auto weights = make_blocks(kNumColumns * kNumBlocks, kWeightBytes);
  for (const int32_t num_rows : {1, 3, 4, 5, 131}) {
    const auto x = make_activations(num_rows);
    const auto out = multiply_rows(weights, x.data(), num_rows, 2);
    for (int32_t row = 0; row < num_rows; ++row) {
      for (int32_t column = 0; column < kNumColumns; ++column) {
        double size = 0.0;
        const double expected =
            product_of(&weights[static_cast<size_t>(column * kNumBlocks) * kWeightBytes],
                       &x[static_cast<size_t>(row * kNumBlocks) * kActivationBytes], size);
        const float got = out[static_cast<size_t>(row * kNumColumns + column)];
        CHECK(std::abs(static_cast<double>(got) - expected) < 1e-5 * size);
      }
    }
  }
}

TEST(q4_0, the_largest_numbers_do_not_overflow) {
  if (!has_q40_kernel()) SKIP("the kernel needs AVX2");
  for (const std::byte weight : {std::byte{0xff}, std::byte{0x00}}) {
    for (const std::byte number : {std::byte{127}, std::byte{0x81}}) {
      auto weights = make_blocks(kNumColumns * kNumBlocks, kWeightBytes);
      auto x = make_activations(4);
      for (size_t i = 0; i < weights.size(); ++i) {
        if (i % kWeightBytes >= sizeof(uint16_t)) weights[i] = weight;
      }
      for (size_t i = 0; i < x.size(); ++i) {
        if (i % kActivationBytes >= sizeof(uint16_t)) x[i] = number;
      }
      for (const int32_t num_rows : {1, 4}) {
        const auto out = multiply_rows(weights, x.data(), num_rows, 1);
        double size = 0.0;
        const double expected = product_of(weights.data(), x.data(), size);
        CHECK(std::abs(static_cast<double>(out[0]) - expected) < 1e-5 * size);
      }
    }
  }
}

TEST(q4_0, with_helpers_it_has_the_same_bits) {
  if (!has_q40_kernel()) SKIP("the kernel needs AVX2");
  const auto weights = make_blocks(kNumColumns * kNumBlocks, kWeightBytes);
  const auto x = make_activations(131);
  const auto all = multiply_rows(weights, x.data(), 131, 1);
  Helpers helpers(2);
  for (int i = 0; i < 200; ++i) {
    CHECK(multiply_rows(weights, x.data(), 131, 1, &helpers) == all);
  }
}

TEST(q4_0, a_row_has_the_same_bits_beside_others_and_on_any_number_of_threads) {
  if (!has_q40_kernel()) SKIP("the kernel needs AVX2");
  constexpr int32_t kNumRows = 150;
  const auto weights = make_blocks(kNumColumns * kNumBlocks, kWeightBytes);
  const auto x = make_activations(kNumRows);
  const auto together = multiply_rows(weights, x.data(), kNumRows, 1);
  CHECK_EQ(multiply_rows(weights, x.data(), kNumRows, 3), together);
  for (const int32_t beside : {1, 2, 3, 4, 7}) {
    for (int32_t row = 0; row + beside <= kNumRows; row += beside) {
      const auto few = multiply_rows(
          weights, x.data() + static_cast<size_t>(row * kNumBlocks) * kActivationBytes, beside, 1);
      CHECK(std::equal(few.begin(), few.end(), together.begin() + row * kNumColumns));
    }
  }
}

}  // namespace
}  // namespace snapllm
