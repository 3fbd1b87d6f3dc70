#include "kernels/query_tiles.h"

#include <vector>

#include "check.h"

namespace snapllm {
namespace {

constexpr size_t kCells = 2048;

// A mask of `num_queries` rows, and the tiles that are found for it.
struct Rows {
  explicit Rows(size_t num) : num_queries(num), bits(num * kCells, kHiddenCell) {}

  void show(int32_t query, int32_t begin, int32_t end) {
    for (int32_t cell = begin; cell < end; ++cell) {
      bits[static_cast<size_t>(query) * kCells + static_cast<size_t>(cell)] = kPlainCell;
    }
  }

  std::vector<QueryTile> find(int32_t max_queries = 64) {
    const MaskRows mask{reinterpret_cast<const std::byte*>(bits.data()), kCells * sizeof(uint16_t),
                        kCells};
    std::vector<QueryTile> tiles(num_queries);
    std::vector<QueryTile> chains(num_queries);
    order.resize(num_queries);
    counts.resize(num_queries);
    tiles.resize(static_cast<size_t>(
        find_tiles(mask, cell_order, static_cast<int32_t>(num_queries), max_queries, 0,
                   {tiles.data(), chains.data(), order.data(), counts.data()})));
    return tiles;
  }

  const size_t num_queries;
  std::vector<uint16_t> bits;
  CellOrder cell_order;
  std::vector<int32_t> order;
  std::vector<int32_t> counts;
};

TEST(query_tiles, the_tokens_of_a_prompt_are_computed_together) {
  Rows rows(5);
  for (int32_t query = 0; query < 5; ++query) rows.show(query, 0, 100 + query);
  const auto tiles = rows.find(3);
  REQUIRE(tiles.size() == 2);
  CHECK_EQ(tiles[0].num_queries, 2);
  CHECK_EQ(tiles[0].num_cells, 101);
  CHECK_EQ(tiles[0].num_shared, 0);
  CHECK_EQ(tiles[1].first, 2);
  CHECK_EQ(tiles[1].num_queries, 3);
  CHECK_EQ(num_runs(tiles[0]), 1);
}

TEST(query_tiles, a_prompt_that_goes_on_before_its_beginning_is_computed_together) {
  Rows rows(3);
  std::vector<uint64_t> stamps(kCells);
  for (size_t cell = 500; cell < 600; ++cell) stamps[cell] = cell;
  const std::vector<int64_t> own = {20, 30, 10};
  for (int32_t query = 0; query < 3; ++query) {
    rows.show(query, 500, 600);
    for (int32_t i = 0; i <= query; ++i) {
      const auto cell = static_cast<int32_t>(own[static_cast<size_t>(i)]);
      rows.show(query, cell, cell + 1);
      stamps[static_cast<size_t>(cell)] = 1000 + static_cast<uint64_t>(i);
    }
  }
  CHECK_EQ(rows.find().size(), 3);
  rows.cell_order = {stamps.data(), own};
  const auto tiles = rows.find();
  REQUIRE(tiles.size() == 1);
  CHECK_EQ(tiles[0].num_queries, 3);
  CHECK_EQ(tiles[0].num_cells, 103);
  std::vector<int32_t> cells = {10, 20, 30, 500, 599};
  sort_cells(cells, stamps.data());
  CHECK(cells == (std::vector<int32_t>{500, 599, 20, 30, 10}));
}

TEST(query_tiles, what_does_not_come_first_of_an_answer_is_not_shared) {
  Rows rows(2);
  std::vector<uint64_t> stamps(kCells);
  for (size_t cell = 0; cell < kCells; ++cell) stamps[cell] = cell + 1;
  for (const int32_t query : {0, 1}) {
    rows.show(query, 0, 600);
    rows.show(query, 1000 + query, 1001 + query);
  }
  const std::vector<int64_t> own = {1000, 1001};
  rows.cell_order = {stamps.data(), own};
  CHECK_EQ(rows.find().size(), 1);
  stamps[100] = 5000;  // of another sequence's past: it comes last here
  CHECK_EQ(rows.find().size(), 2);
}

TEST(query_tiles, a_long_prompt_is_cut_into_tiles_of_one_size) {
  Rows rows(8);
  for (int32_t query = 0; query < 7; ++query) rows.show(query, 0, 100 + query);
  rows.show(7, 500, 510);
  const auto tiles = rows.find(3);
  REQUIRE(tiles.size() == 4);
  int32_t next = 0;
  for (const QueryTile& tile : tiles) {
    CHECK_EQ(tile.first, next);
    next += tile.num_queries;
    CHECK_EQ(tile.num_cells, rows.counts[static_cast<size_t>(next - 1)]);
  }
  CHECK_EQ(tiles[0].num_queries, 2);
  CHECK_EQ(tiles[1].num_queries, 2);
  CHECK_EQ(tiles[2].num_queries, 3);
  CHECK_EQ(tiles[3].num_queries, 1);
}

TEST(query_tiles, answers_that_begin_alike_go_over_what_they_share_together) {
  Rows rows(5);
  for (const int32_t query : {0, 2, 4}) {
    rows.show(query, 0, 600);
    rows.show(query, 1000 + query * 10, 1005 + query * 10);
  }
  for (const int32_t query : {1, 3}) {
    rows.show(query, 1100, 1400);
    rows.show(query, 1500 + query * 20, 1500 + query * 20 + query);
  }
  const auto tiles = rows.find();
  REQUIRE(tiles.size() == 2);
  CHECK(rows.order == std::vector<int32_t>({0, 2, 4, 1, 3}));
  CHECK_EQ(tiles[0].num_queries, 3);
  CHECK_EQ(tiles[0].num_shared, 512);
  CHECK_EQ(tiles[1].first, 3);
  CHECK_EQ(tiles[1].num_shared, 256);
  REQUIRE(num_runs(tiles[1]) == 3);
  const auto count = [&](int32_t query) {
    return rows.counts[static_cast<size_t>(rows.order[static_cast<size_t>(3 + query)])];
  };
  const TileRun last = run_of(tiles[1], 2, count);
  CHECK_EQ(last.first, 1);
  CHECK_EQ(last.num_queries, 1);
  CHECK_EQ(last.begin, 256);
  CHECK_EQ(last.end, 303);
}

TEST(query_tiles, one_that_shares_little_is_left_out_where_the_others_share_much) {
  Rows rows(4);
  for (const int32_t query : {0, 1, 3}) {
    rows.show(query, 0, 1500);
    rows.show(query, 1600 + query, 1601 + query);
  }
  rows.show(2, 0, 300);
  rows.show(2, 1700, 1900);
  const auto tiles = rows.find();
  REQUIRE(tiles.size() == 2);
  CHECK_EQ(tiles[0].num_queries, 3);
  CHECK_EQ(tiles[0].num_shared, 1280);
  CHECK_EQ(tiles[1].num_queries, 1);
}

TEST(query_tiles, a_tile_has_no_more_queries_than_are_wanted) {
  Rows rows(7);
  for (int32_t query = 0; query < 7; ++query) {
    rows.show(query, 0, 300);
    rows.show(query, 400 + query, 401 + query);
  }
  const auto tiles = rows.find(3);
  REQUIRE(tiles.size() == 3);
  CHECK_EQ(tiles[0].num_queries, 3);
  CHECK_EQ(tiles[1].num_queries, 3);
  CHECK_EQ(tiles[2].num_queries, 1);
}

TEST(query_tiles, sequences_apart_and_ones_that_share_less_than_a_span_stay_alone) {
  Rows rows(4);
  rows.show(0, 0, 500);
  rows.show(1, 600, 1100);
  for (const int32_t query : {2, 3}) {
    rows.show(query, 1200, 1400);
    rows.show(query, 1500 + query * 100, 1600 + query * 100);
  }
  CHECK_EQ(rows.find().size(), size_t{4});
}

}  // namespace
}  // namespace snapllm
