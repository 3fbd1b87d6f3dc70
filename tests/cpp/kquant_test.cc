#include "kernels/kquant.h"

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "kernels/simd.h"

namespace snapllm {
namespace {

constexpr int32_t kNumBlocks = 3;
constexpr int32_t kNumColumns = 37;

struct Format {
  KQuantType type;
  size_t bytes;
  std::vector<size_t> scales_at;  // of the 16-bit scales
  size_t num_numbers = 256;       // of a block
  size_t activation_bytes = 4 + 256 + 32;
};

const Format kIq4Nl = {KQuantType::kIq4Nl, 18, {0}, 32, 2 + 32};
const Format kFormats[] = {{KQuantType::kQ2K, 84, {80, 82}}, {KQuantType::kQ3K, 110, {108}},
                           {KQuantType::kQ4K, 144, {0, 2}},  {KQuantType::kQ5K, 176, {0, 2}},
                           {KQuantType::kQ6K, 210, {208}},   {KQuantType::kIq4Xs, 136, {0}},
                           kIq4Nl};

std::mt19937& random_bits() {
  static std::mt19937 random(1);
  return random;
}

// About 2^-7, in binary16.
uint16_t random_scale() { return static_cast<uint16_t>(0x2000 + random_bits()() % 0x400); }

std::vector<std::byte> make_weights(const Format& format) {
  std::vector<std::byte> weights(kNumColumns * kNumBlocks * format.bytes);
  for (std::byte& byte : weights) byte = static_cast<std::byte>(random_bits()());
  for (size_t block = 0; block < weights.size(); block += format.bytes) {
    for (const size_t at : format.scales_at) {
      const uint16_t half = random_scale();
      std::memcpy(&weights[block + at], &half, sizeof(half));
    }
  }
  return weights;
}

int8_t random_number() { return static_cast<int8_t>(static_cast<int>(random_bits()() % 255) - 127); }

// Rows of block_q8_K, or of block_q8_0 where blocks are that small.
std::vector<std::byte> make_activations(const Format& format, int32_t num_rows,
                                        int8_t (*number)() = random_number) {
  std::vector<std::byte> blocks(static_cast<size_t>(num_rows * kNumBlocks) * format.activation_bytes);
  for (size_t at = 0; at < blocks.size(); at += format.activation_bytes) {
    int8_t numbers[256];
    int16_t sums[16] = {};
    for (size_t i = 0; i < format.num_numbers; ++i) {
      numbers[i] = number();
      sums[i / 16] = static_cast<int16_t>(sums[i / 16] + numbers[i]);
    }
    if (format.num_numbers == 32) {
      const uint16_t scale = random_scale();
      std::memcpy(&blocks[at], &scale, 2);
      std::memcpy(&blocks[at + 2], numbers, 32);
    } else {
      const float scale = 0.001F * static_cast<float>(1 + random_bits()() % 100);
      std::memcpy(&blocks[at], &scale, 4);
      std::memcpy(&blocks[at + 4], numbers, 256);
      std::memcpy(&blocks[at + 260], sums, 32);
    }
  }
  return blocks;
}

constexpr int kIq4Values[] = {-127, -104, -83, -65, -49, -35, -22, -10,
                              1,    13,   25,  38,  53,  69,  89,  113};

// The numbers of a block as its format has them, computed one by one.
std::vector<double> numbers_of(const Format& format, const std::byte* data) {
  const auto* b = reinterpret_cast<const uint8_t*>(data);
  const auto half = [&](size_t at) {
    uint16_t bits;
    std::memcpy(&bits, b + at, sizeof(bits));
    return static_cast<double>(simd::half_to_float(bits));
  };
  std::vector<double> numbers;
  for (int i = 0; i < static_cast<int>(format.num_numbers); ++i) {
    const int s = i / 32;
    if (format.type == KQuantType::kIq4Nl) {
      numbers.push_back(half(0) * kIq4Values[b[2 + i % 16] >> (i / 16 * 4) & 15]);
      continue;
    }
    if (format.type == KQuantType::kQ2K) {
      const uint8_t scales = b[i / 16];
      const int number = b[16 + i / 128 * 32 + i % 32] >> (s % 4 * 2) & 3;
      numbers.push_back(half(80) * (scales & 15) * number - half(82) * (scales >> 4));
      continue;
    }
    if (format.type == KQuantType::kQ3K) {
      const uint8_t* q = b + 96;
      const int k = i / 16;
      const int scale = (q[k % 8] >> (k / 8 * 4) & 15) | (q[8 + k % 4] >> (k / 4 * 2) & 3) << 4;
      const int number = (b[32 + i / 128 * 32 + i % 32] >> (s % 4 * 2) & 3) - (b[i % 32] >> s & 1 ? 0 : 4);
      numbers.push_back(half(108) * (scale - 32) * number);
      continue;
    }
    if (format.type == KQuantType::kIq4Xs) {
      const int high = b[2] | b[3] << 8;
      const int scale = (b[4 + s / 2] >> (s % 2 * 4) & 15) | (high >> (2 * s) & 3) << 4;
      const int index = b[8 + s * 16 + i % 16] >> (i % 32 / 16 * 4) & 15;
      numbers.push_back(half(0) * (scale - 32) * kIq4Values[index]);
      continue;
    }
    if (format.type == KQuantType::kQ6K) {
      const int part = i % 128 / 32;
      const int low = b[i / 128 * 64 + part % 2 * 32 + i % 32] >> (part / 2 * 4) & 15;
      const int high = b[128 + i / 128 * 32 + i % 32] >> (part * 2) & 3;
      const auto scale = static_cast<int8_t>(b[192 + i / 16]);
      numbers.push_back(half(208) * scale * (low + 16 * high - 32));
      continue;
    }
    const bool is_q5 = format.type == KQuantType::kQ5K;
    const uint8_t* q = b + 4;
    const int scale = s < 4 ? q[s] & 63 : (q[s + 4] & 15) | q[s - 4] >> 6 << 4;
    const int minimum = s < 4 ? q[s + 4] & 63 : q[s + 4] >> 4 | q[s] >> 6 << 4;
    const uint8_t* low = b + (is_q5 ? 48 : 16);
    int number = low[i / 64 * 32 + i % 32] >> (s % 2 * 4) & 15;
    if (is_q5) number += 16 * (b[16 + i % 32] >> s & 1);
    numbers.push_back(half(0) * scale * number - half(2) * minimum);
  }
  return numbers;
}

std::vector<float> multiply_rows(const Format& format, const std::vector<std::byte>& weights,
                                 const std::byte* x, int32_t num_rows, int num_threads) {
  std::vector<float> out(static_cast<size_t>(num_rows * kNumColumns), NAN);
  KQuantArgs args;
  args.weights = weights.data();
  args.weights_stride = kNumBlocks * format.bytes;
  args.type = format.type;
  args.x = x;
  args.x_stride = kNumBlocks * format.activation_bytes;
  args.out = out.data();
  args.out_stride = kNumColumns * sizeof(float);
  args.num_blocks = kNumBlocks;
  args.num_rows = num_rows;
  args.num_columns = kNumColumns;
  for (int thread = 0; thread < num_threads; ++thread) multiply_kquant(args, thread, num_threads);
  return out;
}

// The product of one row with one column, number by number.
double product_of(const Format& format, const std::byte* weights, const std::byte* x, double& size) {
  double sum = 0.0;
  for (int32_t block = 0; block < kNumBlocks; ++block) {
    const auto numbers = numbers_of(format, weights);
    float scale;
    std::memcpy(&scale, x, sizeof(scale));
    size_t at = sizeof(scale);
    if (format.num_numbers == 32) {
      uint16_t half;
      std::memcpy(&half, x, sizeof(half));
      scale = simd::half_to_float(half);
      at = sizeof(half);
    }
    for (size_t n = 0; n < format.num_numbers; ++n) {
      const double product = numbers[n] * static_cast<double>(scale) * static_cast<int8_t>(x[at + n]);
      sum += product;
      size += std::abs(product);
    }
    weights += format.bytes;
    x += format.activation_bytes;
  }
  return sum;
}

void check_products(const Format& format, const std::vector<std::byte>& weights,
                    const std::vector<std::byte>& x, int32_t num_rows) {
  const auto out = multiply_rows(format, weights, x.data(), num_rows, 2);
  for (int32_t i = 0; i < num_rows * kNumColumns; ++i) {
    const auto column = static_cast<size_t>(i % kNumColumns * kNumBlocks);
    const auto row = static_cast<size_t>(i / kNumColumns * kNumBlocks);
    double size = 0.0;
    const double expected = product_of(format, &weights[column * format.bytes],
                                       &x[row * format.activation_bytes], size);
    CHECK(std::abs(static_cast<double>(out[static_cast<size_t>(i)]) - expected) < 1e-5 * size);
  }
}

TEST(kquant, products_are_those_of_the_numbers_that_the_format_means) {
  if (!has_kquant_kernel()) SKIP("the kernel needs AVX2");
  for (const Format& format : kFormats) {
    check_products(format, make_weights(format), make_activations(format, 2), 2);
  }
}

TEST(kquant, the_largest_numbers_of_iq4_nl_do_not_overflow) {
  if (!has_kquant_kernel()) SKIP("the kernel needs AVX2");
  for (const std::byte indices : {std::byte{0x00}, std::byte{0xff}}) {
    auto weights = make_weights(kIq4Nl);
    for (size_t i = 0; i < weights.size(); ++i) {
      if (i % kIq4Nl.bytes >= sizeof(uint16_t)) weights[i] = indices;
    }
    check_products(kIq4Nl, weights, make_activations(kIq4Nl, 1, [] { return int8_t{127}; }), 1);
    check_products(kIq4Nl, weights, make_activations(kIq4Nl, 1, [] { return int8_t{-127}; }), 1);
  }
}

TEST(kquant, a_row_has_the_same_bits_beside_others_and_on_any_number_of_threads) {
  if (!has_kquant_kernel()) SKIP("the kernel needs AVX2");
  for (const Format& format : kFormats) {
    const auto weights = make_weights(format);
    const auto x = make_activations(format, 11);
    const auto together = multiply_rows(format, weights, x.data(), 11, 1);
    CHECK_EQ(multiply_rows(format, weights, x.data(), 11, 5), together);
    for (size_t row = 0; row < 11; ++row) {
      const auto alone = multiply_rows(
          format, weights, x.data() + row * kNumBlocks * format.activation_bytes, 1, 1);
      CHECK(std::equal(alone.begin(), alone.end(), together.begin() + static_cast<ptrdiff_t>(row * kNumColumns)));
    }
  }
}

}  // namespace
}  // namespace snapllm
