#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "kernels/helpers.h"
#include "kernels/query_tiles.h"
#include "check.h"
#include "test_team.h"

namespace snapllm {
namespace {

// Half-precision numbers that are exact multiples of 1/1024 below 2, made by hand: the
// tests need no conversion that the code under test has.
uint16_t half(int thousandths) {
  const int magnitude = std::abs(thousandths);
  if (magnitude == 0) return 0;
  int exponent = 0;
  while ((magnitude << exponent) < 1024) ++exponent;
  const auto bits = static_cast<uint16_t>((15 - exponent) << 10 | ((magnitude << exponent) & 1023));
  return thousandths < 0 ? static_cast<uint16_t>(bits | 0x8000) : bits;
}

double value(uint16_t half_bits) {
  const int exponent = (half_bits >> 10) & 31;
  if (exponent == 31) return half_bits & 0x8000 ? -INFINITY : INFINITY;
  const double magnitude =
      exponent == 0 ? std::ldexp(half_bits & 1023, -24)
                    : std::ldexp(1024 + (half_bits & 1023), exponent - 25);
  return half_bits & 0x8000 ? -magnitude : magnitude;
}

struct Problem {
  AttentionShape shape;
  std::vector<float> q;        // [query][head][key_size]
  std::vector<uint16_t> k, v;  // [cell][kv head][size]
  std::vector<uint16_t> mask;  // [query][cell]
  std::vector<float> sinks;
  float softcap = 0.0F;
  float max_bias = 0.0F;
  std::vector<uint64_t> stamps;  // of the cells; none = as they lie
  std::vector<int64_t> new_cells;

  size_t at(int32_t a, int32_t b, int32_t size_b, int32_t size) const {
    return (static_cast<size_t>(a) * static_cast<size_t>(size_b) + static_cast<size_t>(b)) *
           static_cast<size_t>(size);
  }
};

Problem make_problem(AttentionShape shape, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> thousandths(-1023, 1023);
  Problem problem;
  problem.shape = shape;
  problem.q.resize(problem.at(shape.num_queries, 0, shape.num_heads, shape.key_size));
  for (float& x : problem.q) x = normal(random);
  problem.k.resize(problem.at(shape.num_cells, 0, shape.num_kv_heads, shape.key_size));
  for (uint16_t& x : problem.k) x = half(thousandths(random));
  problem.v.resize(problem.at(shape.num_cells, 0, shape.num_kv_heads, shape.value_size));
  for (uint16_t& x : problem.v) x = half(thousandths(random));
  problem.mask.assign(static_cast<size_t>(shape.num_queries * shape.num_cells), kHiddenCell);
  return problem;
}

uint16_t& mask_at(Problem& problem, int32_t query, int32_t cell) {
  return problem.mask[static_cast<size_t>(query * problem.shape.num_cells + cell)];
}

// The last `num_queries` tokens of a prompt that lies in the cells from `start` on.
void make_causal(Problem& problem, int32_t start) {
  const int32_t num_queries = problem.shape.num_queries;
  for (int32_t query = 0; query < num_queries; ++query) {
    const int32_t end = problem.shape.num_cells - (num_queries - 1 - query);
    for (int32_t cell = start; cell < end; ++cell) mask_at(problem, query, cell) = kPlainCell;
  }
}

AttentionTensor tensor(const void* data, int32_t size, int32_t num_heads, size_t element) {
  const size_t head = static_cast<size_t>(size) * element;
  return {static_cast<const std::byte*>(data), head * static_cast<size_t>(num_heads), head, 0};
}

std::vector<float> attend_with(const Problem& problem, int num_threads,
                               Helpers* helpers = nullptr) {
  const AttentionShape& shape = problem.shape;
  std::vector<float> out(problem.at(shape.num_queries, 0, shape.num_heads, shape.value_size), NAN);
  AttentionArgs args;
  args.shape = shape;
  args.q = tensor(problem.q.data(), shape.key_size, shape.num_heads, sizeof(float));
  args.k = tensor(problem.k.data(), shape.key_size, shape.num_kv_heads, sizeof(uint16_t));
  args.v = tensor(problem.v.data(), shape.value_size, shape.num_kv_heads, sizeof(uint16_t));
  if (!problem.mask.empty()) {
    args.mask = tensor(problem.mask.data(), shape.num_cells, 1, sizeof(uint16_t));
  }
  if (!problem.stamps.empty()) args.order = {problem.stamps.data(), problem.new_cells};
  if (!problem.sinks.empty()) args.sinks = problem.sinks.data();
  args.scale = 1.0F / std::sqrt(static_cast<float>(shape.key_size));
  args.softcap = problem.softcap;
  args.max_bias = problem.max_bias;
  args.out = out.data();
  std::vector<std::byte> scratch(attention_scratch_bytes(shape, num_threads));
  TestTeam together(num_threads);
  if (helpers != nullptr) {
    const Helpers::Scope scope(*helpers);
    Team team = together.of_thread(0);
    team.helpers = helpers;
    attend(args, team, scratch.data());
    return out;
  }
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < num_threads; ++thread) {
    threads.emplace_back(
        [&, thread] { attend(args, together.of_thread(thread), scratch.data()); });
  }
  threads.clear();
  return out;
}

// Softmax of all scores at once, in double precision.
std::vector<double> reference(const Problem& problem) {
  const AttentionShape& shape = problem.shape;
  const int32_t group = shape.num_heads / shape.num_kv_heads;
  std::vector<double> out;
  for (int32_t query = 0; query < shape.num_queries; ++query) {
    for (int32_t head = 0; head < shape.num_heads; ++head) {
      std::vector<double> weights(static_cast<size_t>(shape.num_cells), 0.0);
      double sum = problem.sinks.empty()
                       ? 0.0
                       : std::exp(problem.sinks[static_cast<size_t>(head)]);
      for (int32_t cell = 0; cell < shape.num_cells; ++cell) {
        double bias = 0.0;
        if (!problem.mask.empty()) {
          bias = value(problem.mask[static_cast<size_t>(query * shape.num_cells + cell)]);
        }
        double score = 0.0;
        for (int32_t d = 0; d < shape.key_size; ++d) {
          const auto i = static_cast<size_t>(d);
          score += problem.q[problem.at(query, head, shape.num_heads, shape.key_size) + i] *
                   value(problem.k[problem.at(cell, head / group, shape.num_kv_heads,
                                              shape.key_size) + i]);
        }
        score /= std::sqrt(shape.key_size);
        if (problem.softcap != 0) score = problem.softcap * std::tanh(score / problem.softcap);
        // Slopes of ALiBi where the number of heads is a power of two.
        if (problem.max_bias > 0) bias *= std::exp2(-problem.max_bias * (head + 1) / shape.num_heads);
        weights[static_cast<size_t>(cell)] = std::exp(score + bias);
        sum += weights[static_cast<size_t>(cell)];
      }
      for (int32_t d = 0; d < shape.value_size; ++d) {
        double total = 0.0;
        for (int32_t cell = 0; cell < shape.num_cells; ++cell) {
          const size_t at = problem.at(cell, head / group, shape.num_kv_heads, shape.value_size);
          total += weights[static_cast<size_t>(cell)] * value(problem.v[at + static_cast<size_t>(d)]);
        }
        out.push_back(sum == 0 ? 0.0 : total / sum);
      }
    }
  }
  return out;
}

void check_close(const std::vector<float>& found, const std::vector<double>& wanted) {
  REQUIRE(found.size() == wanted.size());
  double worst = 0.0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double difference = std::abs(found[i] - wanted[i]);
    if (!(difference <= worst)) worst = difference;  // NaN too
  }
  CHECK(worst < 2e-6);
}

// A problem with only one of the queries.
Problem only_query(const Problem& problem, int32_t query) {
  Problem one = problem;
  one.shape.num_queries = 1;
  const size_t size = problem.at(1, 0, problem.shape.num_heads, problem.shape.key_size);
  const auto q = problem.q.begin() + static_cast<ptrdiff_t>(size) * query;
  one.q.assign(q, q + static_cast<ptrdiff_t>(size));
  const auto mask = problem.mask.begin() + static_cast<ptrdiff_t>(query) * problem.shape.num_cells;
  one.mask.assign(mask, mask + problem.shape.num_cells);
  return one;
}

std::vector<float> out_of_query(const Problem& problem, const std::vector<float>& out, int32_t query) {
  const size_t size = problem.at(1, 0, problem.shape.num_heads, problem.shape.value_size);
  const auto begin = out.begin() + static_cast<ptrdiff_t>(size) * query;
  return {begin, begin + static_cast<ptrdiff_t>(size)};
}

TEST(attention, equals_the_softmax_in_double_precision) {
  const AttentionShape shapes[] = {
      {64, 64, 1, 8, 8, 1},        {64, 64, 1, 8, 2, 700},    {16, 16, 40, 4, 2, 300},
      {128, 128, 33, 4, 1, 1000},  {80, 80, 5, 3, 3, 257},    {192, 128, 7, 4, 2, 256},
      {576, 512, 2, 16, 1, 300},   {32, 32, 100, 40, 1, 130},
  };
  unsigned seed = 0;
  for (const AttentionShape& shape : shapes) {
    Problem problem = make_problem(shape, ++seed);
    make_causal(problem, 0);
    for (const int num_threads : {1, 3}) check_close(attend_with(problem, num_threads), reference(problem));
  }
}

TEST(attention, softcap_sinks_biases_and_no_mask) {
  Problem problem = make_problem({64, 64, 9, 8, 2, 400}, 1);
  make_causal(problem, 3);
  problem.softcap = 0.7F;
  check_close(attend_with(problem, 2), reference(problem));
  problem.softcap = 0.0F;
  problem.sinks = {0.5F, -3.0F, 2.0F, 9.0F, 0.0F, 1.0F, -8.0F, 4.0F};
  check_close(attend_with(problem, 2), reference(problem));
  problem.sinks.clear();
  problem.max_bias = 8.0F;
  for (int32_t query = 0; query < 9; ++query) {
    for (int32_t cell = 3; cell <= 391 + query; ++cell) {
      mask_at(problem, query, cell) = half(-((391 + query - cell) % 1000));
    }
  }
  check_close(attend_with(problem, 2), reference(problem));
  problem.max_bias = 0.0F;
  problem.mask.clear();
  check_close(attend_with(problem, 2), reference(problem));
}

TEST(attention, a_query_without_cells_gets_zeros) {
  Problem problem = make_problem({32, 32, 3, 2, 1, 64}, 1);
  mask_at(problem, 1, 5) = kPlainCell;
  for (const int num_threads : {1, 4}) {
    const auto out = attend_with(problem, num_threads);
    CHECK(out_of_query(problem, out, 0) == std::vector<float>(64, 0.0F));
    CHECK(out_of_query(problem, out, 2) == std::vector<float>(64, 0.0F));
    check_close(out_of_query(problem, out, 1), reference(only_query(problem, 1)));
  }
}

TEST(attention, a_query_alone_has_the_same_bits_as_in_a_batch) {
  for (const int32_t num_kv_heads : {1, 2, 8}) {
    Problem problem = make_problem({64, 64, 70, 8, num_kv_heads, 900}, 7);
    make_causal(problem, 0);
    const auto all = attend_with(problem, 1);
    for (int32_t query = 0; query < 70; ++query) {
      CHECK(attend_with(only_query(problem, query), 1) == out_of_query(problem, all, query));
    }
  }
}

TEST(attention, however_many_queries_are_computed_together_each_has_the_same_bits) {
  for (const int32_t size : {16, 32, 64}) {
    for (const int32_t num_heads : {1, 2, 3}) {
      for (int32_t num_queries = 2; num_queries <= 13; ++num_queries) {
        Problem problem = make_problem({size, size, num_queries, num_heads, 1, 290}, 7);
        make_causal(problem, 0);
        const auto all = attend_with(problem, 1);
        for (int32_t query = 0; query < num_queries; ++query) {
          CHECK(attend_with(only_query(problem, query), 1) == out_of_query(problem, all, query));
        }
      }
    }
  }
}

TEST(attention, the_number_of_threads_changes_nothing) {
  for (const int32_t num_queries : {1, 3, 50}) {
    Problem problem = make_problem({64, 64, num_queries, 8, 2, 1500}, 7);
    make_causal(problem, 0);
    const auto alone = attend_with(problem, 1);
    for (const int num_threads : {2, 3, 8, 16}) CHECK(attend_with(problem, num_threads) == alone);
  }
}

TEST(attention, much_work_that_threads_take_in_parts_has_the_same_bits) {
  Problem many = make_problem({64, 64, 96, 8, 4, 700}, 6);
  make_causal(many, 0);
  Problem long_one = make_problem({64, 64, 8, 8, 4, 4000}, 7);
  make_causal(long_one, 10);
  for (const Problem& problem : {many, long_one}) {
    const auto expected = attend_with(problem, 1);
    for (const int num_threads : {2, 3, 5}) CHECK(attend_with(problem, num_threads) == expected);
  }
}

TEST(attention, with_helpers_it_has_the_same_bits) {
  Problem prompt = make_problem({64, 64, 96, 8, 4, 700}, 6);
  make_causal(prompt, 0);
  Problem biased = make_problem({32, 32, 40, 4, 2, 300}, 8);
  make_causal(biased, 0);
  biased.max_bias = 8.0F;
  Problem streams = make_problem({64, 64, 16, 4, 2, 1600}, 9);
  for (int32_t query = 0; query < 16; ++query) {
    for (int32_t cell = query; cell < 1600; cell += 16) mask_at(streams, query, cell) = kPlainCell;
  }
  Problem questions = make_problem({64, 64, 8, 4, 2, 800}, 10);
  for (int32_t query = 0; query < 8; ++query) {
    for (int32_t cell = 0; cell < 600; ++cell) mask_at(questions, query, cell) = kPlainCell;
    for (int32_t i = 0; i < 20; ++i) mask_at(questions, query, 600 + 25 * query + i) = kPlainCell;
  }
  Problem capped = make_problem({32, 32, 64, 8, 2, 500}, 11);
  make_causal(capped, 4);
  capped.softcap = 0.7F;
  capped.sinks = {0.5F, -3.0F, 2.0F, 9.0F, 0.0F, 1.0F, -8.0F, 4.0F};
  // More heads than are computed side by side, and cells in another order than they lie in.
  Problem heads = make_problem({32, 32, 64, 32, 8, 300}, 12);
  make_causal(heads, 0);
  for (uint64_t cell = 0; cell < 300; ++cell) heads.stamps.push_back(cell % 7);
  heads.new_cells.assign(64, 0);
  for (size_t query = 0; query < 64; ++query) heads.new_cells[query] = static_cast<int64_t>(236 + query);
  Helpers helpers(2);
  for (const Problem& problem : {prompt, biased, streams, questions, capped, heads}) {
    const auto alone = attend_with(problem, 1);
    for (int i = 0; i < 20; ++i) CHECK(attend_with(problem, 1, &helpers) == alone);
  }
}

TEST(attention, where_the_cells_lie_and_what_hides_between_them_changes_nothing) {
  Problem dense = make_problem({64, 64, 6, 4, 2, 600}, 3);
  make_causal(dense, 0);
  Problem spread = make_problem({64, 64, 6, 4, 2, 3000}, 4);
  spread.q = dense.q;
  std::vector<int32_t> places(3000);
  std::iota(places.begin(), places.end(), 0);
  std::mt19937 random(5);
  std::shuffle(places.begin(), places.end(), random);
  places.resize(600);
  std::sort(places.begin(), places.end());
  for (int32_t cell = 0; cell < 600; ++cell) {
    const int32_t place = places[static_cast<size_t>(cell)];
    std::copy_n(dense.k.begin() + cell * 128, 128, spread.k.begin() + place * 128);
    std::copy_n(dense.v.begin() + cell * 128, 128, spread.v.begin() + place * 128);
    for (int32_t query = 0; query < 6; ++query) {
      mask_at(spread, query, place) = mask_at(dense, query, cell);
    }
  }
  for (const int num_threads : {1, 4}) {
    CHECK(attend_with(spread, num_threads) == attend_with(dense, num_threads));
  }
}

// The same with cell i at places[i], where it was written as the i-th; the last are the queries' own.
Problem moved(const Problem& problem, std::span<const int32_t> places) {
  const AttentionShape& shape = problem.shape;
  Problem to = problem;
  to.stamps.resize(places.size());
  for (int32_t cell = 0; cell < shape.num_cells; ++cell) {
    const int32_t place = places[static_cast<size_t>(cell)];
    const auto move = [&](const std::vector<uint16_t>& from, std::vector<uint16_t>& numbers,
                          int32_t size) {
      const auto begin = from.begin() + static_cast<ptrdiff_t>(problem.at(cell, 0, shape.num_kv_heads, size));
      std::copy_n(begin, shape.num_kv_heads * size,
                  numbers.begin() + static_cast<ptrdiff_t>(problem.at(place, 0, shape.num_kv_heads, size)));
    };
    move(problem.k, to.k, shape.key_size);
    move(problem.v, to.v, shape.value_size);
    to.stamps[static_cast<size_t>(place)] = static_cast<uint64_t>(cell) + 1;
    for (int32_t query = 0; query < shape.num_queries; ++query) {
      mask_at(to, query, place) =
          problem.mask[static_cast<size_t>(query * shape.num_cells + cell)];
    }
  }
  const auto own = places.last(static_cast<size_t>(shape.num_queries));
  to.new_cells.assign(own.begin(), own.end());
  return to;
}

TEST(attention, tokens_that_were_written_to_whatever_was_free_have_the_bits_of_those_in_a_row) {
  std::mt19937 random(5);
  for (const int32_t num_queries : {1, 5, 70}) {
    Problem problem = make_problem({64, 64, num_queries, 8, 2, 900}, 7);
    make_causal(problem, 10);
    const auto expected = attend_with(problem, 1);
    std::vector<int32_t> places(900);
    std::iota(places.begin(), places.end(), 0);
    for (const int32_t first : {0, 300, 895, 1}) {  // as they lie; in two runs; anyhow
      std::ranges::rotate(places, places.begin() + first);
      if (first == 1) std::ranges::shuffle(places, random);
      const Problem elsewhere = moved(problem, places);
      CHECK(attend_with(elsewhere, 1) == expected);
      CHECK(attend_with(elsewhere, 3) == expected);
    }
  }
}

TEST(attention, neighbours_of_other_sequences_change_nothing) {
  // Rows of several sequences and of sliding windows, in no order.
  Problem problem = make_problem({32, 64, 60, 4, 2, 800}, 9);
  std::mt19937 random(2);
  for (int32_t query = 0; query < 60; ++query) {
    const auto sequence = static_cast<int32_t>(random() % 5);
    const auto from = static_cast<int32_t>(random() % 300);
    for (int32_t cell = from; cell < 300 + query * 7; ++cell) {
      if (cell / 13 % 5 == sequence) mask_at(problem, query, cell) = kPlainCell;
    }
  }
  const auto all = attend_with(problem, 3);
  check_close(all, reference(problem));
  for (int32_t query = 0; query < 60; ++query) {
    CHECK(attend_with(only_query(problem, query), 1) == out_of_query(problem, all, query));
  }
}

// The next token of sequences that begin with the same cells, and then have `num_own` each.
void make_forks(Problem& problem, std::span<const int32_t> queries, int32_t start, int32_t num_shared,
                int32_t num_own) {
  int32_t own = start + num_shared;
  for (const int32_t query : queries) {
    for (int32_t cell = start; cell < start + num_shared; ++cell) {
      mask_at(problem, query, cell) = kPlainCell;
    }
    for (int32_t i = 0; i < num_own; ++i) mask_at(problem, query, own++) = kPlainCell;
  }
}

TEST(attention, answers_that_begin_with_the_same_prompt_have_the_bits_they_have_alone) {
  Problem problem = make_problem({64, 64, 20, 8, 2, 3000}, 8);
  make_forks(problem, std::vector<int32_t>{0, 2, 3, 5, 7, 11, 12, 13, 17}, 5, 700, 19);
  make_forks(problem, std::vector<int32_t>{1, 4, 6, 18}, 1000, 512, 300);  // of whole spans
  make_forks(problem, std::vector<int32_t>{8, 9}, 2800, 90, 2);  // of less than a span
  make_forks(problem, std::vector<int32_t>{10, 14, 15, 16, 19}, 2200, 256, 0);  // all the same
  for (const int num_threads : {1, 2, 3, 8}) {
    const auto all = attend_with(problem, num_threads);
    for (int32_t query = 0; query < 20; ++query) {
      CHECK(attend_with(only_query(problem, query), 1) == out_of_query(problem, all, query));
    }
  }
}

TEST(attention, answers_that_share_cells_in_whatever_order_have_the_bits_they_have_in_a_row) {
  std::mt19937 random(6);
  Problem problem = make_problem({64, 64, 4, 8, 2, 1500}, 11);
  const std::vector<int32_t> queries = {0, 1, 2, 3};
  make_forks(problem, queries, 0, 1200, 60);
  const auto expected = attend_with(problem, 1);
  std::vector<int32_t> places(1500);
  std::iota(places.begin(), places.end(), 0);
  for (const int32_t first : {0, 700, 1}) {
    std::ranges::rotate(places, places.begin() + first);
    if (first == 1) std::ranges::shuffle(places, random);
    CHECK(attend_with(moved(problem, places), 2) == expected);
  }
}

TEST(attention, an_infinite_value_reaches_only_queries_that_see_its_cell) {
  constexpr uint16_t kInfinity = 0x7c00;
  for (const int32_t num_queries : {3, 40}) {  // values used as they lie, and packed
    for (const int32_t num_kv_heads : {1, 4}) {
      Problem problem = make_problem({32, 32, num_queries, 4, num_kv_heads, 300}, 7);
      make_causal(problem, 0);
      const int32_t cell = 300 - num_queries + 1;  // seen from query 1 on
      problem.v[problem.at(cell, 0, num_kv_heads, 32)] = kInfinity;
      const auto all = attend_with(problem, 1);
      const auto first = out_of_query(problem, all, 0);
      CHECK(std::all_of(first.begin(), first.end(), [](float x) { return std::isfinite(x); }));
      CHECK(std::isinf(out_of_query(problem, all, 1).front()));
      for (int32_t query = 0; query < num_queries; ++query) {
        CHECK(attend_with(only_query(problem, query), 1) == out_of_query(problem, all, query));
      }
    }
  }
}

TEST(attention, each_batch_has_its_own_keys) {
  Problem problem = make_problem({32, 32, 8, 2, 1, 128}, 1);
  make_causal(problem, 0);
  const auto whole = attend_with(problem, 1);
  // The same memory, taken for two of half the queries over all cells, twice the same.
  AttentionArgs args;
  args.shape = {32, 32, 4, 2, 1, 128, 2};
  args.q = tensor(problem.q.data(), 32, 2, sizeof(float));
  args.q.batch_stride = 4 * args.q.row_stride;
  args.k = tensor(problem.k.data(), 32, 1, sizeof(uint16_t));
  args.v = tensor(problem.v.data(), 32, 1, sizeof(uint16_t));
  args.mask = tensor(problem.mask.data(), 128, 1, sizeof(uint16_t));
  args.mask.batch_stride = 4 * args.mask.row_stride;
  args.scale = 1.0F / std::sqrt(32.0F);
  std::vector<float> out(whole.size());
  args.out = out.data();
  std::vector<std::byte> scratch(attention_scratch_bytes(args.shape, 1));
  attend(args, Team(), scratch.data());
  CHECK(out == whole);
}

TEST(attention, sizes_that_are_no_vectors_are_not_taken) {
  CHECK(can_attend({64, 64, 1, 8, 2, 1}));
  CHECK(!can_attend({6, 64, 1, 8, 2, 1}));
  CHECK(!can_attend({64, 2, 1, 8, 2, 1}));
  CHECK(!can_attend({64, 64, 1, 8, 3, 1}));
  CHECK(!can_attend({64, 64, 1, 8, 0, 1}));
}

TEST(attention, visible_cells_of_a_row) {
  for (const size_t size : {100U, 99U, 128U}) {
    std::vector<uint16_t> row(size, kHiddenCell);
    std::vector<int32_t> cells(size);
    const auto expect = [&](const std::vector<int32_t>& visible, bool has_bias) {
      const VisibleCells found = visible_cells(row);
      CHECK_EQ(found.count, static_cast<int32_t>(visible.size()));
      CHECK_EQ(found.end, visible.empty() ? 0 : visible.back() + 1);
      CHECK_EQ(found.has_bias, has_bias);
      REQUIRE(list_visible(row, cells.data()) == found.count);
      CHECK(std::equal(visible.begin(), visible.end(), cells.begin()));
    };
    expect({}, false);
    for (const size_t cell : {3U, 40U, 64U, 98U}) row[cell] = kPlainCell;
    expect({3, 40, 64, 98}, false);
    row[7] = half(-500);
    expect({3, 7, 40, 64, 98}, true);
    row[7] = kPlainCell;
    row[98] = half(-2);
    expect({3, 7, 40, 64, 98}, true);
    std::fill(row.begin(), row.end(), kPlainCell);
    std::vector<int32_t> all(size);
    std::iota(all.begin(), all.end(), 0);
    expect(all, false);
  }
}

TEST(attention, what_threads_exchange_is_bounded) {
  AttentionShape shape{128, 128, 100, 32, 8, 131072};
  const int num_threads = 32;
  CHECK(attention_scratch_bytes(shape, num_threads) < size_t{256} << 20);
  shape.num_queries = 1;  // decoding shares spans out
  CHECK(attention_scratch_bytes(shape, num_threads) >
        attention_scratch_bytes(shape, 1) * num_threads + (size_t{8} << 20) - (size_t{1} << 16));
}

}  // namespace
}  // namespace snapllm
