#include "backend/cpu_products.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backend/ggml_team.h"
#include "backend/product_rows.h"
#include "ggml-cpu.h"
#include "kernels/column_work.h"
#include "kernels/matmul.h"
#include "kernels/q4_0.h"

namespace snapllm {
namespace {

// Weights times rows of floats: one matrix, or one for each head. What is computed (an operation's)
// counts as weights where it is one matrix only.
bool is_plain_product(const ggml_tensor* op) {
  const ggml_tensor* weights = op->src[0];
  if (ggml_get_op_params_i32(op, 1) != 0) return false;  // a hint at a special matrix
  const bool is_one = weights->ne[2] == 1 && weights->ne[3] == 1;
  return (is_one || weights->op == GGML_OP_NONE) && has_plain_operands(op);
}

// Which columns of a product's matrices come to a thread.
class ProductShares {
 public:
  ProductShares(const ggml_compute_params* params, const ggml_tensor* op)
      : op_(op), team_(team_of(params)), num_shares_(num_shares(cost(), params->nth)) {}

  // Whether a thread that is done takes the next share; `wait_for_all` comes first then.
  bool are_taken() const { return num_shares_ > team_.num_threads; }

  // Returns once all threads have called it, with what they prepared.
  void wait_for_all() const {
    if (are_taken()) {
      begin_taking(team_);
    } else {
      team_.wait_for_all(team_.context);
    }
  }

  // Computes this thread's shares of the matrices with `kMultiply(args, share, num_shares, scratch)`,
  // or, with help, all of them. `args` has everything but where the weights and the results are;
  // `set_rows(args, row)` sets where the rows from that one on are. The thread has `scratch` for
  // itself, each helper as much.
  template <auto kMultiply, int32_t kBlockColumns, typename Args, typename SetRows>
  void multiply(const Args& args, SetRows&& set_rows, std::byte* scratch = nullptr,
                size_t scratch_bytes = 0) const {
    const auto args_of = [&](size_t first_row, const std::byte* weights, float* out) {
      Args of_matrix = args;
      of_matrix.weights = weights;
      of_matrix.out = out;
      set_rows(of_matrix, first_row);
      return of_matrix;
    };
    if (team_.helpers != nullptr && num_matrices() == 1) {
      using Work = ColumnWork<Args, kMultiply, kBlockColumns>;
      const int shares = Work::shares_for(cost(), args.num_columns, team_.helpers->num_threads());
      if (shares > 1) {
        const Args all = args_of(0, matrix_of(op_->src[0], 0, 0),
                                 reinterpret_cast<float*>(matrix_of(op_, 0, 0)));
        return team_.helpers->run(Work{all, shares, scratch_bytes, scratch}, shares);
      }
    }
    for_each([&](size_t first_row, const std::byte* weights, float* out, int share, int shares) {
      kMultiply(args_of(first_row, weights, out), share, shares, scratch);
    });
  }

 private:
  // Calls `compute(first_row, weights, out, share, num_shares)` for shares of the matrices.
  template <typename Compute>
  void for_each(Compute&& compute) const {
    if (are_taken()) {
      const int each = (num_shares_ + num_matrices() - 1) / num_matrices();
      take_shares(team_, num_matrices() * each, [&](int share) {
        compute_share(share / each, share % each, each, compute);
      });
    } else {
      for (int matrix = 0; matrix < num_matrices(); ++matrix) {
        compute_share(matrix, team_.thread, team_.num_threads, compute);
      }
    }
  }

  int num_matrices() const { return static_cast<int>(op_->src[1]->ne[2] * op_->src[1]->ne[3]); }

  double cost() const {
    return static_cast<double>(ggml_nelements(op_->src[1])) *
           static_cast<double>(op_->src[0]->ne[1]);
  }

  template <typename Compute>
  void compute_share(int matrix, int share, int num_shares, Compute&& compute) const {
    const ggml_tensor* weights = op_->src[0];
    const ggml_tensor* x = op_->src[1];
    const int64_t i2 = matrix % x->ne[2];
    const int64_t i3 = matrix / x->ne[2];
    // Several matrices of rows may share one of weights.
    const std::byte* of_weights = matrix_of(weights, i2 / (x->ne[2] / weights->ne[2]),
                                            i3 / (x->ne[3] / weights->ne[3]));
    compute(static_cast<size_t>(matrix * x->ne[1]), of_weights,
            reinterpret_cast<float*>(matrix_of(op_, i2, i3)), share, num_shares);
  }

  const ggml_tensor* op_;
  const Team team_;
  const int num_shares_;  // of all matrices together
};

bool is_float_product(const ggml_tensor* op) {
  switch (op->src[0]->type) {
    case GGML_TYPE_F32:
    case GGML_TYPE_F16:
    case GGML_TYPE_BF16: return can_multiply(op->src[1]->ne[0]);
    default: return false;
  }
}

class FloatProduct final : public ggml::cpu::tensor_traits {
 public:
  bool work_size(int, const ggml_tensor*, size_t& size) override {
    size = 0;
    return true;
  }

  bool compute_forward(ggml_compute_params* params, ggml_tensor* op) override {
    const ggml_tensor* weights = op->src[0];
    const ggml_tensor* x = op->src[1];
    MatmulArgs args;
    args.weights_stride = weights->nb[1];
    args.weights_type = weights->type == GGML_TYPE_F32   ? NumberType::kFloat
                        : weights->type == GGML_TYPE_F16 ? NumberType::kHalf
                                                         : NumberType::kBfloat16;
    args.x_stride = x->nb[1];
    args.out_stride = op->nb[1];
    args.size = static_cast<int32_t>(x->ne[0]);
    args.num_rows = static_cast<int32_t>(x->ne[1]);
    args.num_columns = static_cast<int32_t>(weights->ne[1]);
    const ProductShares shares(params, op);
    if (shares.are_taken()) shares.wait_for_all();
    shares.multiply<&multiply_floats, 16>(args, [&](MatmulArgs& of_matrix, size_t first_row) {
      of_matrix.x = reinterpret_cast<const std::byte*>(row_of(x, static_cast<int64_t>(first_row)));
    });
    return true;
  }

 private:
  static void multiply_floats(const MatmulArgs& args, int share, int num_shares, std::byte*) {
    snapllm::multiply(args, share, num_shares);
  }
};

// Whether ggml computes the product by its kernel for many rows of K-quants.
bool is_tiled(const ggml_tensor* op) {
  constexpr int64_t kFirstTiledRows = 8;
  return op->src[1]->ne[1] >= kFirstTiledRows && op->src[0]->type != GGML_TYPE_IQ4_NL;
}

class KQuantProduct final : public ggml::cpu::tensor_traits {
 public:
  bool work_size(int, const ggml_tensor* op, size_t& size) override {
    size = quantized_row_bytes(op) * static_cast<size_t>(ggml_nrows(op->src[1]));
    return true;
  }

  bool compute_forward(ggml_compute_params* params, ggml_tensor* op) override {
    const ProductShares shares(params, op);
    quantize_rows(params, op);
    shares.wait_for_all();
    const ggml_tensor* weights = op->src[0];
    KQuantArgs args;
    args.weights_stride = weights->nb[1];
    args.type = *kquant_type_of(weights->type);
    args.x_stride = quantized_row_bytes(op);
    args.out_stride = op->nb[1];
    args.num_blocks = num_blocks_of(weights);
    args.num_rows = static_cast<int32_t>(op->src[1]->ne[1]);
    args.num_columns = static_cast<int32_t>(weights->ne[1]);
    shares.multiply<&multiply_blocks, 16>(args, [&](KQuantArgs& of_matrix, size_t first_row) {
      of_matrix.x = static_cast<const std::byte*>(params->wdata) + args.x_stride * first_row;
    });
    return true;
  }

 private:
  static void multiply_blocks(const KQuantArgs& args, int share, int num_shares, std::byte*) {
    multiply_kquant(args, share, num_shares);
  }
};

class Q40Product final : public ggml::cpu::tensor_traits {
 public:
  bool work_size(int num_threads, const ggml_tensor* op, size_t& size) override {
    size = kAlignment + rows_bytes(op) + scratch_bytes(op) * static_cast<size_t>(num_threads);
    return true;
  }

  bool compute_forward(ggml_compute_params* params, ggml_tensor* op) override {
    const ggml_tensor* weights = op->src[0];
    const auto address = reinterpret_cast<uintptr_t>(params->wdata);
    auto* rows = reinterpret_cast<std::byte*>((address + kAlignment - 1) / kAlignment * kAlignment);
    std::byte* scratch =
        rows + rows_bytes(op) + scratch_bytes(op) * static_cast<size_t>(params->ith);
    const ProductShares shares(params, op);
    quantize(params, op, rows, scratch);
    shares.wait_for_all();
    Q40Args args;
    args.weights_stride = weights->nb[1];
    args.out_stride = op->nb[1];
    args.num_blocks = num_blocks_of(weights);
    args.num_rows = static_cast<int32_t>(op->src[1]->ne[1]);
    args.num_columns = static_cast<int32_t>(weights->ne[1]);
    const auto set_rows = [&](Q40Args& of_matrix, size_t first_row) {
      of_matrix.x = rows + q40_row_bytes(args.num_blocks) * first_row;
    };
    shares.multiply<&multiply_q40, 32>(args, set_rows, scratch, q40_scratch_bytes(args.num_blocks));
    return true;
  }

 private:
  static constexpr size_t kAlignment = 64;

  static size_t rows_bytes(const ggml_tensor* op) {
    return q40_row_bytes(num_blocks_of(op->src[0])) * static_cast<size_t>(ggml_nrows(op->src[1]));
  }

  // It holds a row's blocks first, as ggml quantizes them.
  static size_t scratch_bytes(const ggml_tensor* op) {
    const int32_t num_blocks = num_blocks_of(op->src[0]);
    return std::max(q40_scratch_bytes(num_blocks), q40_row_bytes(num_blocks));
  }

  static void quantize(const ggml_compute_params* params, const ggml_tensor* op, std::byte* rows,
                       std::byte* scratch) {
    const auto from_float = ggml_get_type_traits_cpu(GGML_TYPE_Q8_0)->from_float;
    const int64_t size = ggml_blck_size(GGML_TYPE_Q8_0);
    const int32_t num_blocks = num_blocks_of(op->src[0]);
    const BlockShare share(params, num_blocks);
    for (int64_t row = 0; row < ggml_nrows(op->src[1]); ++row, rows += q40_row_bytes(num_blocks)) {
      from_float(row_of(op->src[1], row) + share.begin * size, scratch,
                 (share.end - share.begin) * size);
      prepare_q40_blocks(scratch, static_cast<int32_t>(share.begin),
                         static_cast<int32_t>(share.end), rows);
    }
  }
};

}  // namespace

ggml::cpu::tensor_traits* product_kernel(const ggml_tensor* op) {
  static FloatProduct float_product;
  static KQuantProduct kquant_product;
  static Q40Product q40_product;
  if (!is_plain_product(op)) return nullptr;
  if (is_float_product(op)) return &float_product;
  const ggml_type type = op->src[0]->type;
  if (!has_product_kernel(type)) return nullptr;
  if (type == GGML_TYPE_Q4_0) return &q40_product;
  return is_tiled(op) ? nullptr : &kquant_product;
}

std::optional<KQuantType> kquant_type_of(ggml_type type) {
  switch (type) {
    case GGML_TYPE_Q2_K: return KQuantType::kQ2K;
    case GGML_TYPE_Q3_K: return KQuantType::kQ3K;
    case GGML_TYPE_Q4_K: return KQuantType::kQ4K;
    case GGML_TYPE_Q5_K: return KQuantType::kQ5K;
    case GGML_TYPE_Q6_K: return KQuantType::kQ6K;
    case GGML_TYPE_IQ4_XS: return KQuantType::kIq4Xs;
    case GGML_TYPE_IQ4_NL: return KQuantType::kIq4Nl;
    default: return std::nullopt;
  }
}

bool has_product_kernel(ggml_type quantization) {
  if (quantization == GGML_TYPE_Q4_0) return has_q40_kernel();
  return has_kquant_kernel() && kquant_type_of(quantization).has_value();
}

}  // namespace snapllm
