// Several saved states are read as if they were one. The states here have the form of llama.cpp's:
// streams, cells, the cells' positions, then for each layer its kind, its row size and its rows.
#include "backend/state_reader.h"

#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>

#include "check.h"
#include "ggml-backend.h"
#include "ggml.h"

namespace snapllm {
namespace {

constexpr int32_t kType = 1;
constexpr int64_t kRowNumbers = 4;
constexpr size_t kRowBytes = kRowNumbers * sizeof(float);
constexpr int64_t kMemoryCells = 16;

struct SavedCell {
  int32_t position = 0;
  float key = 0;  // all of its row
  float value = 0;
};

class Bytes {
 public:
  template <typename T>
  Bytes& add(T number) {
    const auto* first = reinterpret_cast<const uint8_t*>(&number);
    bytes_.insert(bytes_.end(), first, first + sizeof(number));
    return *this;
  }
  StateBytes take() const { return StateBytes(bytes_.begin(), bytes_.end()); }

 private:
  std::vector<uint8_t> bytes_;
};

// Of images, cells have a place in two dimensions more; values may lie the other way round.
struct Form {
  bool has_places = false;
  bool is_transposed = false;
};

StateBytes state_of(const std::vector<SavedCell>& cells, Form form = {}, int32_t type = kType) {
  Bytes bytes;
  bytes.add(uint32_t{0x1234}).add(int32_t{3});
  bytes.add(uint32_t{1}).add(static_cast<uint32_t>(cells.size()));
  for (const SavedCell& cell : cells) {
    bytes.add(cell.position).add(uint32_t{1});
    if (form.has_places) bytes.add(int32_t{7}).add(int32_t{8}).add(int32_t{9});
    bytes.add(int32_t{3});
  }
  bytes.add(uint32_t{form.is_transposed}).add(uint32_t{1});
  bytes.add(type).add(uint64_t{kRowBytes});
  for (const SavedCell& cell : cells) {
    for (int64_t i = 0; i < kRowNumbers; ++i) bytes.add(cell.key + static_cast<float>(i));
  }
  bytes.add(type);
  if (form.is_transposed) {
    bytes.add(uint32_t{sizeof(float)}).add(static_cast<uint32_t>(kRowNumbers));
    for (int64_t i = 0; i < kRowNumbers; ++i) {
      for (const SavedCell& cell : cells) bytes.add(cell.value + static_cast<float>(i));
    }
  } else {
    bytes.add(uint64_t{kRowBytes});
    for (const SavedCell& cell : cells) {
      for (int64_t i = 0; i < kRowNumbers; ++i) bytes.add(cell.value + static_cast<float>(i));
    }
  }
  return bytes.take();
}

// A KV memory of one layer.
class Memory {
 public:
  explicit Memory(Form form = {}) : form_(form), context_(ggml_init({1 << 16, nullptr, true})) {
    keys_ = ggml_new_tensor_2d(context_.get(), GGML_TYPE_F32, kRowNumbers, kMemoryCells);
    ggml_set_name(keys_, "cache_k_l0");
    values_ = form.is_transposed
                  ? ggml_new_tensor_2d(context_.get(), GGML_TYPE_F32, kMemoryCells, kRowNumbers)
                  : ggml_new_tensor_2d(context_.get(), GGML_TYPE_F32, kRowNumbers, kMemoryCells);
    buffer_.reset(ggml_backend_alloc_ctx_tensors_from_buft(context_.get(),
                                                           ggml_backend_cpu_buffer_type()));
    ggml_backend_buffer_clear(buffer_.get(), 0);
  }

  // Reads as llama.cpp does, and puts the cells into these.
  void read(StateReader& reader, const std::vector<std::pair<size_t, size_t>>& runs) {
    CHECK_EQ(number<uint32_t>(reader), 1u);
    num_cells = number<uint32_t>(reader);
    for (uint32_t i = 0; i < num_cells; ++i) {
      positions.push_back(number<int32_t>(reader));
      CHECK_EQ(number<uint32_t>(reader), 1u);
      char place[12];
      if (form_.has_places) reader.read(place, sizeof(place));
      number<int32_t>(reader);
    }
    number<uint32_t>(reader);
    CHECK_EQ(number<uint32_t>(reader), 1u);
    number<int32_t>(reader);
    CHECK_EQ(number<uint64_t>(reader), kRowBytes);
    for (const auto& [from, to] : runs) {
      reader.read_tensor(keys_, from * kRowBytes, (to - from) * kRowBytes);
    }
    number<int32_t>(reader);
    if (!form_.is_transposed) {
      number<uint64_t>(reader);
      for (const auto& [from, to] : runs) {
        reader.read_tensor(values_, from * kRowBytes, (to - from) * kRowBytes);
      }
      return;
    }
    number<uint32_t>(reader);
    const auto num_rows = number<uint32_t>(reader);
    for (size_t row = 0; row < num_rows; ++row) {
      for (const auto& [from, to] : runs) {
        reader.read_tensor(values_, (row * kMemoryCells + from) * sizeof(float),
                           (to - from) * sizeof(float));
      }
    }
  }

  float key(int64_t cell, int64_t i) const { return at(keys_, cell * kRowNumbers + i); }
  float value(int64_t cell, int64_t i) const {
    return at(values_, form_.is_transposed ? i * kMemoryCells + cell : cell * kRowNumbers + i);
  }
  const LayerOrder* order() const { return static_cast<const LayerOrder*>(keys_->extra); }

  uint32_t num_cells = 0;
  std::vector<int32_t> positions;

 private:
  template <typename T>
  static T number(StateReader& reader) {
    T value;
    reader.read(&value, sizeof(value));
    return value;
  }
  static float at(const ggml_tensor* tensor, int64_t index) {
    return static_cast<const float*>(tensor->data)[index];
  }

  struct Free {
    void operator()(ggml_context* context) const { ggml_free(context); }
    void operator()(ggml_backend_buffer* buffer) const { ggml_backend_buffer_free(buffer); }
  };
  const Form form_;
  std::unique_ptr<ggml_context, Free> context_;
  std::unique_ptr<ggml_backend_buffer, Free> buffer_;
  ggml_tensor* keys_ = nullptr;
  ggml_tensor* values_ = nullptr;
};

SavedState saved(const StateBytes& bytes, int32_t begin, int32_t end) {
  return {&bytes, {begin, end}, end - begin};
}

const std::vector<SavedCell> kFirst = {{0, 10, 110}, {1, 20, 120}, {2, 30, 130}};
const std::vector<SavedCell> kSecond = {{4, 50, 150}, {3, 40, 140}};  // as they lay in the memory
const std::vector<SavedCell> kThird = {{5, 60, 160}};
// Where their cells come to lie; a run begins in one state and ends in the next.
const std::vector<std::pair<size_t, size_t>> kRuns = {{2, 4}, {7, 10}, {15, 16}};
const std::vector<int64_t> kCells = {2, 3, 7, 8, 9, 15};

TEST(state_reader, states_are_read_as_if_they_were_one) {
  for (const Form form : {Form{}, Form{true, false}, Form{false, true}, Form{true, true}}) {
    const auto first = state_of(kFirst, form);
    const auto second = state_of(kSecond, form);
    const auto third = state_of(kThird, form);
    const std::vector<SavedState> states = {saved(first, 0, 3), saved(second, 3, 5),
                                            saved(third, 5, 6)};
    StateReader reader(states);
    Memory memory(form);
    memory.read(reader, kRuns);
    CHECK_EQ(memory.num_cells, 6u);
    CHECK(memory.positions == std::vector<int32_t>({0, 1, 2, 4, 3, 5}));
    CHECK(reader.is_at_end());
    CHECK_EQ(reader.n_bytes(), first.size() + second.size() + third.size());
    CHECK_EQ(memory.key(2, 0), 0.0f);  // nothing is put before all of it was read

    CellOrders orders;
    reader.put(orders);
    const float keys[] = {10, 20, 30, 50, 40, 60};
    for (size_t row = 0; row < kCells.size(); ++row) {
      for (int64_t i = 0; i < kRowNumbers; ++i) {
        CHECK_EQ(memory.key(kCells[row], i), keys[row] + static_cast<float>(i));
        CHECK_EQ(memory.value(kCells[row], i), keys[row] + 100 + static_cast<float>(i));
      }
    }
    CHECK_EQ(memory.key(0, 0), 0.0f);
    CHECK_EQ(memory.key(14, 0), 0.0f);
  }
}

TEST(state_reader, cells_are_noted_in_the_order_of_their_positions) {
  const auto first = state_of(kFirst);
  const auto second = state_of(kSecond);
  const auto third = state_of(kThird);
  const std::vector<SavedState> states = {saved(first, 0, 3), saved(second, 3, 5),
                                          saved(third, 5, 6)};
  StateReader reader(states);
  Memory memory;
  memory.read(reader, kRuns);
  CellOrders orders;
  reader.put(orders);
  const CellOrder order = memory.order()->order_for(6, static_cast<int32_t>(kMemoryCells));
  CHECK(std::ranges::equal(order.new_cells, std::vector<int64_t>({2, 3, 7, 9, 8, 15})));
}

// As of a model whose layers see windows or all: two memories, each with positions of its own.
TEST(state_reader, memories_that_take_the_same_cells_have_each_its_own_order) {
  StateBytes both = state_of({{0, 10, 110}, {1, 20, 120}, {2, 30, 130}});
  const StateBytes second = state_of({{2, 30, 130}, {0, 10, 110}, {1, 20, 120}});
  both.insert(both.end(), second.begin() + 8, second.end());  // without a mark of its own
  const std::vector<SavedState> states = {saved(both, 0, 3)};
  StateReader reader(states);
  Memory all;
  Memory window;
  all.read(reader, {{0, 3}});
  window.read(reader, {{0, 3}});
  CHECK(reader.is_at_end());
  CellOrders orders;
  reader.put(orders);
  const auto cells_of = [](const Memory& memory) {
    return memory.order()->order_for(3, static_cast<int32_t>(kMemoryCells)).new_cells;
  };
  CHECK(std::ranges::equal(cells_of(all), std::vector<int64_t>({0, 1, 2})));
  CHECK(std::ranges::equal(cells_of(window), std::vector<int64_t>({1, 2, 0})));
}

// Reads two states of these ranges into cells one after the other; what it throws.
std::string failure_of(const StateBytes& first, const StateBytes& second, TokenRange of_first = {0, 3},
                       TokenRange of_second = {3, 5}) {
  const std::vector<SavedState> states = {saved(first, of_first.begin, of_first.end),
                                          saved(second, of_second.begin, of_second.end)};
  StateReader reader(states);
  Memory memory;
  try {
    memory.read(reader, {{0, 5}});
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return reader.is_at_end() ? "" : "it goes on";
}

TEST(state_reader, states_that_do_not_go_together_are_refused) {
  const auto first = state_of(kFirst);
  const auto second = state_of(kSecond);
  CHECK_EQ(failure_of(first, second), "");
  CHECK_EQ(failure_of(first, state_of(kSecond, {}, kType + 1)), "the states are not alike");
  auto shorter = second;
  shorter.pop_back();
  CHECK_EQ(failure_of(first, shorter), "the state is too short");
  auto longer = first;
  longer.push_back(0);
  CHECK_EQ(failure_of(longer, second), "it goes on");
}

TEST(state_reader, states_with_other_positions_than_theirs_are_refused) {
  const auto first = state_of(kFirst);
  const auto second = state_of(kSecond);
  CHECK_EQ(failure_of(first, second, {0, 3}, {4, 6}), "a state has another's positions");
  CHECK_EQ(failure_of(second, first, {0, 2}, {2, 5}), "a state has another's positions");
  CHECK_EQ(failure_of(first, second, {0, 3}, {3, 6}), "a state does not have all of its positions");
}

TEST(state_reader, a_position_that_could_not_be_removed_again_is_refused) {
  constexpr int32_t kLast = std::numeric_limits<int32_t>::max();
  const auto state = state_of({{0, 10, 110}, {kLast, 20, 120}, {2, 30, 130}});
  const std::vector<SavedState> states = {saved(state, 0, 3)};
  StateReader reader(states);
  Memory memory;
  std::string failure;
  try {
    memory.read(reader, {{0, 3}});
  } catch (const std::runtime_error& error) {
    failure = error.what();
  }
  CHECK_EQ(failure, "the state has a position that no cell can have");
}

TEST(state_reader, rows_beyond_the_memory_are_refused) {
  const auto first = state_of(kFirst);
  const auto second = state_of(kSecond);
  for (const bool is_one : {true, false}) {
    std::vector<SavedState> states = {saved(first, 0, 3)};
    if (!is_one) states.push_back(saved(second, 3, 5));
    StateReader reader(states);
    Memory memory;
    bool is_refused = false;
    try {
      memory.read(reader, {{15, is_one ? size_t{18} : size_t{20}}});
    } catch (const std::runtime_error&) {
      is_refused = true;
    }
    CHECK(is_refused);
  }
}

}  // namespace
}  // namespace snapllm
