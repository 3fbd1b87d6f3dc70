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
constexpr size_t kActivationBytes = 4 + 256 + 32;

struct Format {
  KQuantType type;
  size_t bytes;
  std::vector<size_t> scales_at;  // of the 16-bit scales
};

const Format kFormats[] = {
    {KQuantType::kQ4K, 144, {0, 2}}, {KQuantType::kQ5K, 176, {0, 2}}, {KQuantType::kQ6K, 210, {208}}};

std::mt19937& random_bits() {
  static std::mt19937 random(1);
  return random;
}

std::vector<std::byte> make_weights(const Format& format) {
  std::vector<std::byte> weights(kNumColumns * kNumBlocks * format.bytes);
  for (std::byte& byte : weights) byte = static_cast<std::byte>(random_bits()());
  for (size_t block = 0; block < weights.size(); block += format.bytes) {
    for (const size_t at : format.scales_at) {
      const auto half = static_cast<uint16_t>(0x2000 + random_bits()() % 0x400);  // about 2^-7
      std::memcpy(&weights[block + at], &half, sizeof(half));
    }
  }
  return weights;
}

std::vector<std::byte> make_activations(int32_t num_rows) {
  std::vector<std::byte> blocks(static_cast<size_t>(num_rows * kNumBlocks) * kActivationBytes);
  for (size_t at = 0; at < blocks.size(); at += kActivationBytes) {
    const float scale = 0.001F * static_cast<float>(1 + random_bits()() % 100);
    int8_t numbers[256];
    int16_t sums[16] = {};
    for (int i = 0; i < 256; ++i) {
      numbers[i] = static_cast<int8_t>(static_cast<int>(random_bits()() % 255) - 127);
      sums[i / 16] = static_cast<int16_t>(sums[i / 16] + numbers[i]);
    }
    std::memcpy(&blocks[at], &scale, 4);
    std::memcpy(&blocks[at + 4], numbers, 256);
    std::memcpy(&blocks[at + 260], sums, 32);
  }
  return blocks;
}

// The numbers of a block as its format has them, computed one by one.
std::vector<double> numbers_of(const Format& format, const std::byte* data) {
  const auto* b = reinterpret_cast<const uint8_t*>(data);
  const auto half = [&](size_t at) {
    uint16_t bits;
    std::memcpy(&bits, b + at, sizeof(bits));
    return static_cast<double>(simd::half_to_float(bits));
  };
  std::vector<double> numbers;
  for (int i = 0; i < 256; ++i) {
    if (format.type == KQuantType::kQ6K) {
      const int part = i % 128 / 32;
      const int low = b[i / 128 * 64 + part % 2 * 32 + i % 32] >> (part / 2 * 4) & 15;
      const int high = b[128 + i / 128 * 32 + i % 32] >> (part * 2) & 3;
      const auto scale = static_cast<int8_t>(b[192 + i / 16]);
      numbers.push_back(half(208) * scale * (low + 16 * high - 32));
      continue;
    }
    const bool is_q5 = format.type == KQuantType::kQ5K;
    const int s = i / 32;
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
  args.x_stride = kNumBlocks * kActivationBytes;
  args.out = out.data();
  args.out_stride = kNumColumns * sizeof(float);
  args.num_blocks = kNumBlocks;
  args.num_rows = num_rows;
  args.num_columns = kNumColumns;
  for (int thread = 0; thread < num_threads; ++thread) multiply_kquant(args, thread, num_threads);
  return out;
}

TEST(kquant, products_are_those_of_the_numbers_that_the_format_means) {
  if (!has_kquant_kernel()) SKIP("the kernel needs AVX-512 VNNI");
  for (const Format& format : kFormats) {
    const auto weights = make_weights(format);
    const auto x = make_activations(2);
    const auto out = multiply_rows(format, weights, x.data(), 2, 2);
    for (int32_t i = 0; i < 2 * kNumColumns; ++i) {
      double expected = 0.0;
      double size = 0.0;
      for (int32_t block = 0; block < kNumBlocks; ++block) {
        const auto at = static_cast<size_t>(i % kNumColumns * kNumBlocks + block);
        const auto numbers = numbers_of(format, &weights[at * format.bytes]);
        const std::byte* y =
            &x[static_cast<size_t>(i / kNumColumns * kNumBlocks + block) * kActivationBytes];
        float scale;
        std::memcpy(&scale, y, sizeof(scale));
        for (size_t n = 0; n < 256; ++n) {
          const double product =
              numbers[n] * static_cast<double>(scale) * static_cast<int8_t>(y[4 + n]);
          expected += product;
          size += std::abs(product);
        }
      }
      CHECK(std::abs(static_cast<double>(out[static_cast<size_t>(i)]) - expected) < 1e-5 * size);
    }
  }
}

TEST(kquant, a_row_has_the_same_bits_beside_others_and_on_any_number_of_threads) {
  if (!has_kquant_kernel()) SKIP("the kernel needs AVX-512 VNNI");
  for (const Format& format : kFormats) {
    const auto weights = make_weights(format);
    const auto x = make_activations(11);
    const auto together = multiply_rows(format, weights, x.data(), 11, 1);
    CHECK_EQ(multiply_rows(format, weights, x.data(), 11, 5), together);
    for (size_t row = 0; row < 11; ++row) {
      const auto alone = multiply_rows(
          format, weights, x.data() + row * kNumBlocks * kActivationBytes, 1, 1);
      CHECK(std::equal(alone.begin(), alone.end(), together.begin() + static_cast<ptrdiff_t>(row * kNumColumns)));
    }
  }
}

}  // namespace
}  // namespace snapllm
