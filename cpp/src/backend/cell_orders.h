// In which order the cells of a context's KV memory were written, layer by layer.
//
// llama.cpp writes a sequence's tokens to whatever cells are free, so that a later one may lie before
// an earlier one. Sums over cells as they lie would depend on what else was in the memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "kernels/cell_order.h"

struct ggml_tensor;

namespace snapllm {

// The order of one layer's cells. Its keys refer to it, for the attention over them.
class LayerOrder {
 public:
  explicit LayerOrder(size_t num_cells) : stamps_(num_cells) {}

  // Cells that tokens are being written to, in the tokens' order.
  void note_written(const std::vector<int64_t>& cells);
  // The order for attention of `num_queries` tokens over `num_cells` cells; none where these are not
  // the tokens that were written last.
  CellOrder order_for(int32_t num_queries, int32_t num_cells) const;

 private:
  std::vector<uint64_t> stamps_;
  std::vector<int64_t> last_;
  uint64_t next_ = 1;
};

// Of one context. Its decodes are to run while a Scope of it is there, on their thread.
class CellOrders {
 public:
  class Scope {
   public:
    explicit Scope(CellOrders& orders);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
  };

  // That of the thread's scope; null = there is none.
  static CellOrders* current();

  LayerOrder& of(ggml_tensor* keys);

 private:
  std::unordered_map<const ggml_tensor*, std::unique_ptr<LayerOrder>> layers_;
};

// The tensor that another is a view of; null = it is none.
ggml_tensor* memory_tensor_of(const ggml_tensor* view);
// Whether a tensor is the memory of a layer's keys; it may be null.
bool is_key_memory(const ggml_tensor* tensor);

// The order of the cells that keys are a view of; null = it is not known.
const LayerOrder* order_of(const ggml_tensor* keys);

}  // namespace snapllm
