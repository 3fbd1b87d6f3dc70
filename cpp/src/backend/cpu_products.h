// Which products of matrices ggml's CPU backend computes by kernels of our own.
#pragma once

#include <optional>

#include "ggml.h"
#include "kernels/kquant.h"
#include "traits.h"

namespace snapllm {

// The kernel for a product of matrices, or nullptr where ggml's own is to compute it. Ours take
// weights that are not quantized (kernels/matmul.h), Q4_0 as it lies in the file (kernels/q4_0.h),
// IQ4_NL and a few rows times K-quants as they lie in the file (kernels/kquant.h).
ggml::cpu::tensor_traits* product_kernel(const ggml_tensor* op);

// Whether this build has a kernel for such weights, as they lie in the file.
bool has_product_kernel(ggml_type quantization);

// The format of weights that kernels/kquant.h knows.
std::optional<KQuantType> kquant_type_of(ggml_type type);

}  // namespace snapllm
