// Products of a mixture of experts that ggml's CPU backend computes by kernels of our own.
#pragma once

#include "ggml.h"
#include "traits.h"

namespace snapllm {

// The kernel for a product of rows with the experts they are routed to (GGML_OP_MUL_MAT_ID), or
// nullptr where ggml's own is to compute it. Ours takes K-quants as they lie in the file, of which
// ggml computes an expert's product by another kernel for many rows than for a few.
ggml::cpu::tensor_traits* expert_product_kernel(const ggml_tensor* op);

}  // namespace snapllm
