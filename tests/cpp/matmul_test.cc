#include "kernels/matmul.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/column_work.h"

namespace snapllm {
namespace {

constexpr int32_t kSize = 96;

struct Problem {
  int32_t num_rows;
  int32_t num_columns;
  std::vector<float> x;
  std::vector<float> weights;  // few enough bits for each of the types
};

Problem make_problem(int32_t num_rows, int32_t num_columns) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> integer(-127, 127);
  Problem problem{num_rows, num_columns, {}, {}};
  problem.x.resize(static_cast<size_t>(num_rows * kSize));
  for (float& x : problem.x) x = normal(random);
  problem.weights.resize(static_cast<size_t>(num_columns * kSize));
  for (float& x : problem.weights) x = static_cast<float>(integer(random)) / 64.0F;
  return problem;
}

// The upper 16 bits of a float, and the binary16 of one of few bits.
uint16_t to_bfloat16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return static_cast<uint16_t>(bits >> 16);
}

uint16_t to_half(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  if (x == 0.0F) return 0;
  const auto exponent = static_cast<int>(bits >> 23 & 0xff) - 127 + 15;
  return static_cast<uint16_t>((bits >> 16 & 0x8000) | static_cast<uint32_t>(exponent) << 10 |
                               (bits >> 13 & 0x3ff));
}

void multiply_share(const MatmulArgs& args, int share, int num_shares, std::byte*) {
  multiply(args, share, num_shares);
}

std::vector<float> multiply_with(const Problem& problem, NumberType type, int num_threads,
                                 Helpers* helpers = nullptr) {
  std::vector<uint16_t> halves;
  for (const float x : problem.weights) {
    halves.push_back(type == NumberType::kHalf ? to_half(x) : to_bfloat16(x));
  }
  const bool is_float = type == NumberType::kFloat;
  MatmulArgs args;
  args.weights = is_float ? reinterpret_cast<const std::byte*>(problem.weights.data())
                          : reinterpret_cast<const std::byte*>(halves.data());
  args.weights_stride = kSize * (is_float ? sizeof(float) : sizeof(uint16_t));
  args.weights_type = type;
  args.x = reinterpret_cast<const std::byte*>(problem.x.data());
  args.x_stride = kSize * sizeof(float);
  args.size = kSize;
  args.num_rows = problem.num_rows;
  args.num_columns = problem.num_columns;
  // A column more than is written to.
  const auto width = static_cast<size_t>(problem.num_columns) + 1;
  std::vector<float> out(static_cast<size_t>(problem.num_rows) * width, 7.0F);
  args.out = out.data();
  args.out_stride = width * sizeof(float);
  if (helpers != nullptr) {
    const Helpers::Scope scope(*helpers);
    helpers->run(ColumnWork<MatmulArgs, &multiply_share, 16>{args, 3}, 3);
    return out;
  }
  for (int thread = 0; thread < num_threads; ++thread) multiply(args, thread, num_threads);
  return out;
}

TEST(matmul, equals_the_sum_in_double_precision) {
  for (const auto& [num_rows, num_columns] : {std::pair{1, 1}, {1, 37}, {3, 16}, {37, 50}, {70, 33}}) {
    const Problem problem = make_problem(num_rows, num_columns);
    std::vector<double> wanted;
    for (int32_t row = 0; row < num_rows; ++row) {
      for (int32_t column = 0; column < num_columns; ++column) {
        double sum = 0.0;
        for (int32_t d = 0; d < kSize; ++d) {
          sum += static_cast<double>(problem.x[static_cast<size_t>(row * kSize + d)]) *
                 static_cast<double>(problem.weights[static_cast<size_t>(column * kSize + d)]);
        }
        wanted.push_back(sum);
      }
      wanted.push_back(7.0);
    }
    for (const NumberType type : {NumberType::kFloat, NumberType::kHalf, NumberType::kBfloat16}) {
      const auto found = multiply_with(problem, type, 1);
      REQUIRE(found.size() == wanted.size());
      double worst = 0.0;
      for (size_t i = 0; i < found.size(); ++i) {
        worst = std::max(worst, std::abs(static_cast<double>(found[i]) - wanted[i]));
      }
      CHECK(worst < 2e-5);
    }
  }
}

TEST(matmul, a_row_alone_has_the_same_bits_as_in_a_batch_on_any_number_of_threads) {
  const Problem problem = make_problem(71, 45);
  const auto all = multiply_with(problem, NumberType::kHalf, 1);
  for (const int num_threads : {2, 3, 16}) {
    CHECK(multiply_with(problem, NumberType::kHalf, num_threads) == all);
  }
  for (int32_t row = 0; row < problem.num_rows; ++row) {
    Problem one{1, problem.num_columns, {}, problem.weights};
    one.x.assign(problem.x.begin() + row * kSize, problem.x.begin() + (row + 1) * kSize);
    const auto begin = all.begin() + row * (problem.num_columns + 1);
    CHECK(multiply_with(one, NumberType::kHalf, 1) ==
          std::vector<float>(begin, begin + problem.num_columns + 1));
  }
}

TEST(matmul, with_helpers_it_has_the_same_bits) {
  const Problem problem = make_problem(71, 45);
  const auto all = multiply_with(problem, NumberType::kHalf, 1);
  Helpers helpers(2);
  for (int i = 0; i < 200; ++i) {
    CHECK(multiply_with(problem, NumberType::kHalf, 1, &helpers) == all);
  }
}

TEST(matmul, little_work_is_not_shared_with_helpers_and_no_share_is_without_columns) {
  using Work = ColumnWork<MatmulArgs, &multiply_share, 16>;
  CHECK_EQ(Work::shares_for(1e5, 4096, 1), 1);
  CHECK_EQ(Work::shares_for(1e9, 40, 1), 3);
  CHECK(Work::shares_for(1e12, 1 << 20, 3) <= Helpers::kMaxShares);
  CHECK(Work::shares_for(1e12, 1 << 20, 3) > Work::shares_for(1e12, 1 << 20, 1));
}

TEST(matmul, sizes_that_are_no_vectors_are_not_taken) {
  CHECK(can_multiply(kSize));
  CHECK(!can_multiply(0));
  CHECK(!can_multiply(kSize + 2));
}

}  // namespace
}  // namespace snapllm
