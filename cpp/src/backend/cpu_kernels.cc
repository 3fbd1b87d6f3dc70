#include "backend/cpu_kernels.h"

#include <cstring>
#include <vector>

#include "backend/cell_orders.h"
#include "backend/cpu_products.h"
#include "backend/expert_products.h"
#include "backend/ggml_team.h"
#include "kernels/attention.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "traits.h"

namespace snapllm {
namespace {

AttentionTensor tensor_of(const ggml_tensor* tensor) {
  if (tensor == nullptr) return {};
  return {static_cast<const std::byte*>(tensor->data), tensor->nb[1], tensor->nb[2],
          tensor->nb[3]};
}

AttentionShape shape_of(const ggml_tensor* op) {
  const ggml_tensor* q = op->src[0];
  const ggml_tensor* k = op->src[1];
  const auto size = [](int64_t n) { return static_cast<int32_t>(n); };
  return {size(q->ne[0]), size(op->src[2]->ne[0]), size(q->ne[1]), size(q->ne[2]),
          size(k->ne[2]), size(k->ne[1]),          size(q->ne[3])};
}

float parameter(const ggml_tensor* op, int index) {
  float value;
  std::memcpy(&value, op->op_params + index, sizeof(value));
  return value;
}

bool is_our_attention(const ggml_tensor* op) {
  const ggml_tensor* q = op->src[0];
  const ggml_tensor* k = op->src[1];
  const ggml_tensor* v = op->src[2];
  const ggml_tensor* mask = op->src[3];
  if (q->type != GGML_TYPE_F32 || k->type != GGML_TYPE_F16 || v->type != GGML_TYPE_F16) {
    return false;
  }
  if (v->ne[2] != k->ne[2] || k->ne[3] != q->ne[3] || v->ne[3] != q->ne[3]) return false;
  if (q->nb[0] != sizeof(float) || k->nb[0] != sizeof(uint16_t) || v->nb[0] != sizeof(uint16_t)) {
    return false;
  }
  if (mask != nullptr && (mask->type != GGML_TYPE_F16 || mask->ne[2] != 1 ||
                          (mask->ne[3] != 1 && mask->ne[3] != q->ne[3]))) {
    return false;
  }
  return ggml_is_contiguous(op) && can_attend(shape_of(op));
}

class AttentionTraits final : public ggml::cpu::tensor_traits {
 public:
  bool work_size(int num_threads, const ggml_tensor* op, size_t& size) override {
    size = attention_scratch_bytes(shape_of(op), num_threads);
    return true;
  }

  bool compute_forward(ggml_compute_params* params, ggml_tensor* op) override {
    AttentionArgs args;
    args.shape = shape_of(op);
    args.q = tensor_of(op->src[0]);
    args.k = tensor_of(op->src[1]);
    args.v = tensor_of(op->src[2]);
    args.mask = tensor_of(op->src[3]);
    if (op->src[3] != nullptr && op->src[3]->ne[3] == 1) args.mask.batch_stride = 0;
    const LayerOrder* order = args.shape.num_batches == 1 ? order_of(op->src[1]) : nullptr;
    if (order != nullptr) {
      args.order = order->order_for(args.shape.num_queries, args.shape.num_cells);
    }
    if (op->src[4] != nullptr) args.sinks = static_cast<const float*>(op->src[4]->data);
    args.scale = parameter(op, 0);
    args.max_bias = parameter(op, 1);
    args.softcap = parameter(op, 2);
    args.out = static_cast<float*>(op->data);
    attend(args, team_of(params), static_cast<std::byte*>(params->wdata));
    return true;
  }
};

// Notes which cells a layer's keys are written to, and leaves the writing to ggml.
class KeyRowsTraits final : public ggml::cpu::tensor_traits {
 public:
  bool work_size(int, const ggml_tensor*, size_t&) override { return false; }

  bool compute_forward(ggml_compute_params*, ggml_tensor* op) override {
    const ggml_tensor* rows = op->src[1];
    std::vector<int64_t> cells(static_cast<size_t>(ggml_nelements(rows)));
    std::memcpy(cells.data(), rows->data, ggml_nbytes(rows));
    CellOrders::current()->of(memory_tensor_of(op)).note_written(cells);
    return false;
  }

  // In one thread of those that write, the one which the decode was called in.
  static bool is_noted(const ggml_tensor* op) {
    return CellOrders::current() != nullptr && op->src[1]->type == GGML_TYPE_I64 &&
           is_key_memory(memory_tensor_of(op));
  }
};

// ggml asks the types of buffers with kernels of their own for each operation. No tensor
// is ever put into a buffer of this one: only its kernels are wanted.
class KernelBufferType final : public ggml::cpu::extra_buffer_type {
 public:
  bool supports_op(ggml_backend_dev_t, const ggml_tensor*) override { return false; }
  ggml::cpu::tensor_traits* get_tensor_traits(const ggml_tensor* op) override {
    if (op->op == GGML_OP_FLASH_ATTN_EXT) return is_our_attention(op) ? &attention_ : nullptr;
    if (op->op == GGML_OP_SET_ROWS) return KeyRowsTraits::is_noted(op) ? &key_rows_ : nullptr;
    if (op->op == GGML_OP_MUL_MAT_ID) return expert_product_kernel(op);
    return op->op == GGML_OP_MUL_MAT ? product_kernel(op) : nullptr;
  }

 private:
  AttentionTraits attention_;
  KeyRowsTraits key_rows_;
};

}  // namespace

void install_cpu_kernels() {
  static KernelBufferType kernels;
  static ggml_backend_buffer_type type = {
      {[](ggml_backend_buffer_type_t) { return "CPU_SNAPLLM"; },
       [](ggml_backend_buffer_type_t, size_t) -> ggml_backend_buffer_t { return nullptr; },
       [](ggml_backend_buffer_type_t) -> size_t { return 64; }, nullptr, nullptr, nullptr},
      ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
      &kernels};
  // The list of types for weights is made at the first call, and must not have ours in it.
  const auto list_types = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
      ggml_backend_reg_get_proc_address(ggml_backend_cpu_reg(), "ggml_backend_dev_get_extra_bufts"));
  list_types(type.device);
  ggml_backend_cpu_get_extra_buffer_types().push_back(&type);
}

bool has_cpu_attention(int32_t head_size) {
  return can_attend({head_size, head_size, 1, 1, 1, 1, 1});
}

}  // namespace snapllm
