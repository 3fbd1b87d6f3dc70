// Reads saved states into a context's memory, as llama.cpp's own reader does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/cell_orders.h"
#include "backend/text_backend.h"
#include "llama-io.h"
#include "llama.h"

namespace snapllm {

// One state, or several of a memory that is a single llama_kv_cache: what llama.cpp reads is then a
// single state of all their cells, one after the other, so that cells are looked for and noted once.
// What goes into tensors is put there at the end, when nothing can fail any more.
class StateReader final : public llama_io_read_i {
 public:
  // Their bytes outlive the reader. Throws std::runtime_error where one has no beginning.
  explicit StateReader(std::span<const SavedState> states);

  // These throw std::runtime_error where a state is too short, the states do not go together, or
  // one of several has other positions than those of its range.
  void read(void* to, size_t size) override;
  void read_tensor(ggml_tensor* tensor, size_t offset, size_t size) override;

  size_t n_bytes() override;
  // Whether all of each state was read.
  bool is_at_end() const;
  // Fills the tensors, and notes which cells it were in the order of their positions.
  void put(CellOrders& orders) const;

 private:
  struct Part {
    std::span<const uint8_t> state;
    TokenRange range;
    size_t at = 0;
    size_t end_cell = 0;  // of all parts' cells

    const uint8_t* take(size_t size);
  };
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

  void read_joined(void* to, size_t size);
  void read_cell_counts(void* to);
  void read_of_cell(void* to, size_t size);
  // What all states have alike.
  void read_common(void* to, size_t size);
  Part& part_of(size_t cell);
  // Of one cell in the tensor that comes next.
  size_t bytes_per_cell() const;
  std::vector<size_t> rows_by_position(const Keys& keys) const;

  std::vector<Part> parts_;
  size_t num_cells_ = 0;       // of all parts, where there are several
  size_t num_read_cells_ = 0;  // whose positions were read
  int num_cell_words_ = 0;     // of the next cell that were
  size_t tensor_cell_ = 0;     // the next one in the tensor
  std::vector<Number> numbers_;
  std::vector<Write> writes_;
  std::vector<Keys> keys_;
};

// Sets a sequence to a state, or to several one after the other, as llama_state_seq_set_data does
// for one, and notes the order of its cells. False where they do not fit the context, do not go
// together, or the context's memory takes one at a time; the sequence may hold anything then.
bool set_states(llama_context* context, CellOrders& orders, llama_seq_id sequence,
                std::span<const SavedState> states);

}  // namespace snapllm
