#include "backend/state_reader.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string_view>

#include "ggml-backend.h"
#include "ggml.h"
#include "kernels/large_copy.h"
#include "llama-kv-cache.h"
#include "llama-memory.h"

namespace snapllm {
namespace {

// Before the keys of a memory's next layer: their kind, and the size of a row.
constexpr size_t kNumbersBeforeKeys = 2;
// A mark and a sequence id.
constexpr size_t kHeaderBytes = 8;
// Of a cell, besides what models of images have more: its position, how many sequences it is of,
// and which.
constexpr int kWordsPerCell = 3;
// llama.cpp removes what lies before this position: a cell that has it stays in its sequence for
// ever, and whatever comes into that sequence later is out of order.
constexpr int32_t kEndOfPositions = std::numeric_limits<int32_t>::max();

bool is_recurrent(const ggml_tensor* tensor) {
  const std::string_view name = ggml_get_name(tensor);
  const auto begins_with = [&](std::string_view beginning) { return name.starts_with(beginning); };
  return tensor->type == GGML_TYPE_F32 &&
         (begins_with("cache_r_l") || begins_with("cache_s_l") || begins_with("cache_ple_r_l"));
}

bool is_finite(const uint8_t* numbers, size_t size) {
  constexpr uint32_t kExponent = 0x7f800000;
  bool is_finite = true;
  for (size_t at = 0; at + sizeof(uint32_t) <= size; at += sizeof(uint32_t)) {
    uint32_t bits;
    std::memcpy(&bits, numbers + at, sizeof(bits));
    is_finite &= (bits & kExponent) != kExponent;
  }
  return is_finite;
}

}  // namespace

StateReader::StateReader(std::span<const SavedState> states) {
  for (const SavedState& saved : states) {
    parts_.push_back({std::span(*saved.bytes), saved.range});
    parts_.back().take(kHeaderBytes);
  }
}

const uint8_t* StateReader::Part::take(size_t size) {
  if (size > state.size() - at) throw std::runtime_error("the state is too short");
  at += size;
  return state.data() + at - size;
}

void StateReader::read(void* to, size_t size) {
  if (parts_.size() == 1) {
    std::memcpy(to, parts_.front().take(size), size);
  } else {
    read_joined(to, size);
  }
  Number number{0, size};
  std::memcpy(&number.value, to, std::min(size, sizeof(number.value)));
  if (size == sizeof(number.value) && number.value == kEndOfPositions) {
    throw std::runtime_error("the state has a position that no cell can have");
  }
  numbers_.push_back(number);
}

// How many streams, how many cells, the cells, and then the layers, each with its kind and sizes.
void StateReader::read_joined(void* to, size_t size) {
  if (numbers_.size() == 1) {
    read_cell_counts(to);
  } else if (num_read_cells_ == num_cells_) {
    read_common(to, size);
  } else {
    read_of_cell(to, size);
  }
}

void StateReader::read_of_cell(void* to, size_t size) {
  Part& part = part_of(num_read_cells_);
  std::memcpy(to, part.take(size), size);
  if (size != sizeof(int32_t)) return;
  int32_t word;
  std::memcpy(&word, to, sizeof(word));
  const bool is_position = num_cell_words_ == 0;
  if (is_position && (word < part.range.begin || word >= part.range.end)) {
    throw std::runtime_error("a state has another's positions");
  }
  if (++num_cell_words_ == kWordsPerCell) {
    num_cell_words_ = 0;
    ++num_read_cells_;
  }
}

void StateReader::read_cell_counts(void* to) {
  for (Part& part : parts_) {
    uint32_t count;
    std::memcpy(&count, part.take(sizeof(count)), sizeof(count));
    if (count != static_cast<uint32_t>(part.range.end - part.range.begin)) {
      throw std::runtime_error("a state does not have all of its positions");
    }
    part.end_cell = num_cells_ += count;
  }
  const auto sum = static_cast<uint32_t>(num_cells_);
  std::memcpy(to, &sum, sizeof(sum));
}

void StateReader::read_common(void* to, size_t size) {
  tensor_cell_ = 0;
  std::memcpy(to, parts_.front().take(size), size);
  for (Part& part : std::span(parts_).subspan(1)) {
    if (std::memcmp(part.take(size), to, size) != 0) {
      throw std::runtime_error("the states are not alike");
    }
  }
}

StateReader::Part& StateReader::part_of(size_t cell) {
  return *std::ranges::upper_bound(parts_, cell, {}, &Part::end_cell);
}

// Before rows is their size, before the elements of values that lie the other way round the size of
// an element, and how many there are of a cell.
size_t StateReader::bytes_per_cell() const {
  const Number& last = numbers_.back();
  const Number& size = last.size == sizeof(uint64_t) ? last : numbers_[numbers_.size() - 2];
  if (size.value <= 0) throw std::runtime_error("the state has rows of no size");
  return static_cast<size_t>(size.value);
}

void StateReader::read_tensor(ggml_tensor* tensor, size_t offset, size_t size) {
  if (offset + size > ggml_nbytes(tensor)) throw std::runtime_error("the state is too large");
  if (parts_.size() == 1) {
    const uint8_t* data = parts_.front().take(size);
    // llama.cpp clears such a state by a product with 0, which leaves what is not finite: every
    // sequence that took its place would have that.
    if (is_recurrent(tensor) && !is_finite(data, size)) {
      throw std::runtime_error("the state has numbers that are not finite");
    }
    writes_.push_back({tensor, data, offset, size});
  } else {
    const size_t per_cell = bytes_per_cell();
    for (size_t done = 0; done < size;) {
      Part& part = part_of(tensor_cell_);
      const size_t num_bytes = std::min(size - done, (part.end_cell - tensor_cell_) * per_cell);
      writes_.push_back({tensor, part.take(num_bytes), offset + done, num_bytes});
      done += num_bytes;
      tensor_cell_ = (tensor_cell_ + num_bytes / per_cell) % num_cells_;
    }
  }
  // Other devices have attention of their own, and a use of their own for `extra`.
  if (!is_key_memory(tensor) || !ggml_backend_buffer_is_host(tensor->buffer)) return;
  ggml_tensor* memory = memory_tensor_of(tensor);
  if (memory == nullptr) memory = tensor;
  if (keys_.empty() || keys_.back().memory != memory) keys_.push_back({memory, numbers_.size(), {}});
  const size_t row_bytes = tensor->nb[1];
  for (size_t cell = offset / row_bytes; cell < (offset + size) / row_bytes; ++cell) {
    keys_.back().cells.push_back(static_cast<int64_t>(cell));
  }
}

size_t StateReader::n_bytes() {
  return std::transform_reduce(parts_.begin(), parts_.end(), size_t{0}, std::plus{},
                               [](const Part& part) { return part.at; });
}

bool StateReader::is_at_end() const {
  return std::ranges::all_of(parts_, [](const Part& part) { return part.at == part.state.size(); });
}

void StateReader::put(CellOrders& orders) const {
  for (const Write& write : writes_) {
    if (ggml_backend_buffer_is_host(write.tensor->buffer)) {
      auto* const data = static_cast<uint8_t*>(write.tensor->data);
      copy_past_caches(data + write.offset, write.data, write.size);
    } else {
      ggml_backend_tensor_set(write.tensor, write.data, write.offset, write.size);
    }
  }
  std::vector<size_t> rows;
  const Keys* before = nullptr;
  for (const Keys& keys : keys_) {
    // The layers of one memory have the same rows. Another memory may take the same cells, too,
    // and lie in another order in the state; its layers have cells of their own before them.
    const bool is_next_layer =
        before != nullptr && keys.num_numbers - before->num_numbers == kNumbersBeforeKeys;
    if (!is_next_layer) rows = rows_by_position(keys);
    before = &keys;
    std::vector<int64_t> ordered;
    for (const size_t row : rows) ordered.push_back(keys.cells[row]);
    orders.of(keys.memory).note_written(ordered);
  }
}

// The rows of a memory's first keys in the order of their positions, which the state has before
// them: how many cells there are, for each its words (and one number more, of images), and then
// four of the layers. As they come where it has something else there.
std::vector<size_t> StateReader::rows_by_position(const Keys& keys) const {
  constexpr size_t kOfLayers = 4;
  const size_t num_cells = keys.cells.size();
  std::vector<size_t> rows(num_cells);
  std::iota(rows.begin(), rows.end(), size_t{0});
  for (const size_t each : {size_t{kWordsPerCell}, size_t{kWordsPerCell + 1}}) {
    const size_t of_cells = each * num_cells;
    if (keys.num_numbers < kOfLayers + of_cells + 1) continue;
    const Number* first = &numbers_[keys.num_numbers - kOfLayers - of_cells];
    const bool has_more = first[2].size != sizeof(int32_t);
    if (first[-1].value != static_cast<int32_t>(num_cells) || has_more != (each > kWordsPerCell)) {
      continue;
    }
    std::ranges::stable_sort(rows, {}, [&](size_t row) { return first[each * row].value; });
    break;
  }
  return rows;
}

bool set_states(llama_context* context, CellOrders& orders, llama_seq_id sequence,
                std::span<const SavedState> states) {
  llama_synchronize(context);
  const llama_memory_t memory = llama_get_memory(context);
  // Others are several in one, which would not take the same cells for what they cannot read.
  const bool takes_several = dynamic_cast<const llama_kv_cache*>(memory) != nullptr;
  if (states.size() > 1 && !takes_several) return false;
  try {
    StateReader reader(states);
    memory->state_read(reader, sequence);
    if (!reader.is_at_end()) return false;
    reader.put(orders);
  } catch (const std::runtime_error&) {
    return false;
  }
  return true;
}

}  // namespace snapllm
