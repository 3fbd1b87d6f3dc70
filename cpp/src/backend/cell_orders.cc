#include "backend/cell_orders.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "ggml-backend.h"
#include "ggml.h"
#include "kernels/large_copy.h"
#include "llama-io.h"
#include "llama-memory.h"

namespace snapllm {
namespace {

thread_local CellOrders* current_orders = nullptr;

// Reads a state as llama.cpp's own reader does, and notes which cells it is put into. What goes into
// tensors is put there at the end, when nothing can fail any more.
class StateReader final : public llama_io_read_i {
 public:
  StateReader(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  void read(void* to, size_t size) override {
    std::memcpy(to, take(size), size);
    Number number{0, size};
    std::memcpy(&number.value, to, std::min(size, sizeof(number.value)));
    numbers_.push_back(number);
  }

  void read_tensor(ggml_tensor* tensor, size_t offset, size_t size) override {
    if (offset + size > ggml_nbytes(tensor)) throw std::runtime_error("the state is too large");
    writes_.push_back({tensor, take(size), offset, size});
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

  size_t n_bytes() override { return at_; }

  void put(CellOrders& orders) const {
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
      // The layers of one memory have the same cells.
      if (before == nullptr || before->cells != keys.cells) rows = rows_by_position(keys);
      before = &keys;
      std::vector<int64_t> ordered;
      for (const size_t row : rows) ordered.push_back(keys.cells[row]);
      orders.of(keys.memory).note_written(ordered);
    }
  }

 private:
  struct Number {
    int32_t value = 0;
    size_t size = 0;
  };
  struct Write {
    ggml_tensor* tensor;
    const uint8_t* data;
    size_t offset;
    size_t size;
  };
  struct Keys {
    ggml_tensor* memory;
    size_t num_numbers;  // that were read before them
    std::vector<int64_t> cells;
  };

  const uint8_t* take(size_t size) {
    if (size > size_ - at_) throw std::runtime_error("the state is too short");
    at_ += size;
    return data_ + at_ - size;
  }

  // The rows of a memory's first keys in the order of their positions, which the state has before
  // them: how many cells there are, for each its position and two or three numbers more, and then
  // four of the layers. As they come where it has something else there.
  std::vector<size_t> rows_by_position(const Keys& keys) const {
    constexpr size_t kOfLayers = 4;
    const size_t num_cells = keys.cells.size();
    std::vector<size_t> rows(num_cells);
    std::iota(rows.begin(), rows.end(), size_t{0});
    for (const size_t each : {size_t{3}, size_t{4}}) {
      const size_t of_cells = each * num_cells;
      if (keys.num_numbers < kOfLayers + of_cells + 1) continue;
      const Number* first = &numbers_[keys.num_numbers - kOfLayers - of_cells];
      const bool has_more = first[2].size != sizeof(int32_t);  // of images
      if (first[-1].value != static_cast<int32_t>(num_cells) || has_more != (each == 4)) continue;
      std::ranges::stable_sort(rows, {}, [&](size_t row) { return first[each * row].value; });
      break;
    }
    return rows;
  }

  const uint8_t* const data_;
  const size_t size_;
  size_t at_ = 0;
  std::vector<Number> numbers_;
  std::vector<Write> writes_;
  std::vector<Keys> keys_;
};

}  // namespace

void LayerOrder::note_written(const std::vector<int64_t>& cells) {
  for (const int64_t cell : cells) stamps_[static_cast<size_t>(cell)] = next_++;
  last_ = cells;
}

CellOrder LayerOrder::order_for(int32_t num_queries, int32_t num_cells) const {
  const bool are_these = last_.size() == static_cast<size_t>(num_queries) &&
                         std::ranges::all_of(last_, [&](int64_t cell) { return cell < num_cells; });
  return are_these ? CellOrder{stamps_.data(), last_} : CellOrder{};
}

CellOrders::Scope::Scope(CellOrders& orders) { current_orders = &orders; }

CellOrders::Scope::~Scope() { current_orders = nullptr; }

CellOrders* CellOrders::current() { return current_orders; }

LayerOrder& CellOrders::of(ggml_tensor* keys) {
  std::unique_ptr<LayerOrder>& order = layers_[keys];
  if (order == nullptr) {
    order = std::make_unique<LayerOrder>(static_cast<size_t>(keys->ne[1] * keys->ne[2]));
  }
  keys->extra = order.get();
  return *order;
}

ggml_tensor* memory_tensor_of(const ggml_tensor* view) {
  ggml_tensor* memory = view->view_src;
  while (memory != nullptr && memory->view_src != nullptr) memory = memory->view_src;
  return memory;
}

bool is_key_memory(const ggml_tensor* tensor) {
  constexpr char kName[] = "cache_k_l";
  return tensor != nullptr && std::strncmp(ggml_get_name(tensor), kName, sizeof(kName) - 1) == 0;
}

const LayerOrder* order_of(const ggml_tensor* keys) {
  const ggml_tensor* memory = memory_tensor_of(keys);
  return is_key_memory(memory) ? static_cast<const LayerOrder*>(memory->extra) : nullptr;
}

size_t set_state_in_order(llama_context* context, CellOrders& orders, llama_seq_id sequence,
                          const uint8_t* data, size_t size) {
  llama_synchronize(context);
  StateReader reader(data, size);
  try {
    uint32_t magic;
    llama_seq_id saved_as;
    reader.read(&magic, sizeof(magic));
    reader.read(&saved_as, sizeof(saved_as));
    llama_get_memory(context)->state_read(reader, sequence);
  } catch (const std::exception&) {
    return 0;
  }
  reader.put(orders);
  return reader.n_bytes();
}

}  // namespace snapllm
