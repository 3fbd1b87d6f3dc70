#include "backend/cell_orders.h"

#include <algorithm>
#include <cstring>

#include "ggml.h"

namespace snapllm {
namespace {

thread_local CellOrders* current_orders = nullptr;

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

}  // namespace snapllm
