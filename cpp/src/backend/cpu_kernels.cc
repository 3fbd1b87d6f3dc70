#include "backend/cpu_kernels.h"

#include <cstring>

#include "kernels/attention.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "kernels/kquant.h"
#include "kernels/matmul.h"
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

void wait_for_all(void* threadpool) { ggml_barrier(static_cast<ggml_threadpool*>(threadpool)); }

bool is_our_product(const ggml_tensor* op) {
  const ggml_tensor* weights = op->src[0];
  const ggml_tensor* x = op->src[1];
  switch (weights->type) {
    case GGML_TYPE_F32:
    case GGML_TYPE_F16:
    case GGML_TYPE_BF16: break;
    default: return false;
  }
  if (ggml_get_op_params_i32(op, 1) != 0) return false;  // a hint at a special matrix
  return weights->ne[2] == 1 && weights->ne[3] == 1 && x->type == GGML_TYPE_F32 &&
         op->type == GGML_TYPE_F32 && weights->nb[0] == ggml_type_size(weights->type) &&
         x->nb[0] == sizeof(float) && op->nb[0] == sizeof(float) && can_multiply(x->ne[0]) &&
         x->ne[1] <= INT32_MAX && weights->ne[1] <= INT32_MAX;
}

class ProductTraits final : public ggml::cpu::tensor_traits {
 public:
  bool work_size(int, const ggml_tensor*, size_t& size) override {
    size = 0;
    return true;
  }

  bool compute_forward(ggml_compute_params* params, ggml_tensor* op) override {
    const ggml_tensor* weights = op->src[0];
    const ggml_tensor* x = op->src[1];
    MatmulArgs args;
    args.weights = static_cast<const std::byte*>(weights->data);
    args.weights_stride = weights->nb[1];
    args.weights_type = weights->type == GGML_TYPE_F32   ? NumberType::kFloat
                        : weights->type == GGML_TYPE_F16 ? NumberType::kHalf
                                                         : NumberType::kBfloat16;
    args.x_stride = x->nb[1];
    args.out_stride = op->nb[1];
    args.size = static_cast<int32_t>(x->ne[0]);
    args.num_rows = static_cast<int32_t>(x->ne[1]);
    args.num_columns = static_cast<int32_t>(weights->ne[1]);
    for (int64_t i3 = 0; i3 < x->ne[3]; ++i3) {
      for (int64_t i2 = 0; i2 < x->ne[2]; ++i2) {
        const auto at = [&](const ggml_tensor* tensor) {
          return static_cast<size_t>(i2) * tensor->nb[2] + static_cast<size_t>(i3) * tensor->nb[3];
        };
        args.x = static_cast<const std::byte*>(x->data) + at(x);
        args.out = reinterpret_cast<float*>(static_cast<std::byte*>(op->data) + at(op));
        multiply(args, params->ith, params->nth);
      }
    }
    return true;
  }
};

// From so many rows on ggml computes K-quants by its kernel for many rows.
constexpr int64_t kFirstTiledRows = 8;

bool is_our_kquant_product(const ggml_tensor* op) {
  const ggml_tensor* weights = op->src[0];
  const ggml_tensor* x = op->src[1];
  if (!has_kquant_kernel() || weights->extra != nullptr || x->ne[1] >= kFirstTiledRows) return false;
  switch (weights->type) {
    case GGML_TYPE_Q4_K:
    case GGML_TYPE_Q5_K:
    case GGML_TYPE_Q6_K: break;
    default: return false;
  }
  return weights->ne[2] == 1 && weights->ne[3] == 1 && x->type == GGML_TYPE_F32 &&
         op->type == GGML_TYPE_F32 && weights->nb[0] == ggml_type_size(weights->type) &&
         x->nb[0] == sizeof(float) && op->nb[0] == sizeof(float) && weights->ne[1] <= INT32_MAX;
}

class KQuantProductTraits final : public ggml::cpu::tensor_traits {
 public:
  bool work_size(int, const ggml_tensor* op, size_t& size) override {
    size = row_bytes(op) * static_cast<size_t>(ggml_nrows(op->src[1]));
    return true;
  }

  bool compute_forward(ggml_compute_params* params, ggml_tensor* op) override {
    quantize(params, op->src[1], row_bytes(op));
    ggml_barrier(params->threadpool);
    const ggml_tensor* weights = op->src[0];
    const ggml_tensor* x = op->src[1];
    KQuantArgs args;
    args.weights = static_cast<const std::byte*>(weights->data);
    args.weights_stride = weights->nb[1];
    args.type = weights->type == GGML_TYPE_Q4_K   ? KQuantType::kQ4K
                : weights->type == GGML_TYPE_Q5_K ? KQuantType::kQ5K
                                                  : KQuantType::kQ6K;
    args.x = static_cast<const std::byte*>(params->wdata);
    args.x_stride = row_bytes(op);
    args.out_stride = op->nb[1];
    args.num_blocks = static_cast<int32_t>(x->ne[0] / ggml_blck_size(weights->type));
    args.num_rows = static_cast<int32_t>(x->ne[1]);
    args.num_columns = static_cast<int32_t>(weights->ne[1]);
    for (int64_t i3 = 0; i3 < x->ne[3]; ++i3) {
      for (int64_t i2 = 0; i2 < x->ne[2]; ++i2) {
        args.out = reinterpret_cast<float*>(static_cast<std::byte*>(op->data) +
                                            static_cast<size_t>(i2) * op->nb[2] +
                                            static_cast<size_t>(i3) * op->nb[3]);
        multiply_kquant(args, params->ith, params->nth);
        args.x += args.x_stride * static_cast<size_t>(args.num_rows);
      }
    }
    return true;
  }

 private:
  static size_t row_bytes(const ggml_tensor* op) {
    return ggml_row_size(GGML_TYPE_Q8_K, op->src[1]->ne[0]);
  }

  // This thread's share of the blocks of every row.
  static void quantize(const ggml_compute_params* params, const ggml_tensor* x, size_t bytes) {
    const auto from_float = ggml_get_type_traits_cpu(GGML_TYPE_Q8_K)->from_float;
    const int64_t block_size = ggml_blck_size(GGML_TYPE_Q8_K);
    const int64_t num_blocks = x->ne[0] / block_size;
    const int64_t begin = num_blocks * params->ith / params->nth;
    const int64_t end = num_blocks * (params->ith + 1) / params->nth;
    auto* to = static_cast<std::byte*>(params->wdata) + ggml_row_size(GGML_TYPE_Q8_K, begin * block_size);
    for (int64_t row = 0; row < ggml_nrows(x); ++row, to += bytes) {
      const int64_t i1 = row % x->ne[1];
      const int64_t i2 = row / x->ne[1] % x->ne[2];
      const int64_t i3 = row / x->ne[1] / x->ne[2];
      const auto* from = reinterpret_cast<const float*>(
          static_cast<const std::byte*>(x->data) + static_cast<size_t>(i1) * x->nb[1] +
          static_cast<size_t>(i2) * x->nb[2] + static_cast<size_t>(i3) * x->nb[3]);
      from_float(from + begin * block_size, to, (end - begin) * block_size);
    }
  }
};

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
    if (op->src[4] != nullptr) args.sinks = static_cast<const float*>(op->src[4]->data);
    args.scale = parameter(op, 0);
    args.max_bias = parameter(op, 1);
    args.softcap = parameter(op, 2);
    args.out = static_cast<float*>(op->data);
    attend(args, params->ith, params->nth, static_cast<std::byte*>(params->wdata), wait_for_all,
           params->threadpool);
    return true;
  }
};

// ggml asks the types of buffers with kernels of their own for each operation. No tensor
// is ever put into a buffer of this one: only its kernels are wanted.
class KernelBufferType final : public ggml::cpu::extra_buffer_type {
 public:
  bool supports_op(ggml_backend_dev_t, const ggml_tensor*) override { return false; }
  ggml::cpu::tensor_traits* get_tensor_traits(const ggml_tensor* op) override {
    if (op->op == GGML_OP_FLASH_ATTN_EXT) return is_our_attention(op) ? &attention_ : nullptr;
    if (op->op == GGML_OP_MUL_MAT && is_our_product(op)) return &product_;
    if (op->op == GGML_OP_MUL_MAT && is_our_kquant_product(op)) return &kquant_product_;
    return nullptr;
  }

 private:
  AttentionTraits attention_;
  ProductTraits product_;
  KQuantProductTraits kquant_product_;
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

bool has_cpu_kquants() { return has_kquant_kernel(); }

bool has_cpu_attention(int32_t key_size, int32_t value_size) {
  return can_attend({key_size, value_size, 1, 1, 1, 1, 1});
}

}  // namespace snapllm
