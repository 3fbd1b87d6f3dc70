#include "kernels/kquant.h"

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own header begins from values that are meant to be undefined.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "kernels/column_share.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "kernels/kquant_avx2.h"
#define SNAPLLM_HAS_KQUANTS
#endif
#if defined(__AVX512VNNI__) && defined(__AVX512VL__) && defined(__AVX512BW__) && \
    defined(__AVX512DQ__)
#include "kernels/kquant_avx512.h"
#define SNAPLLM_HAS_WIDE_KQUANTS
#endif

namespace snapllm {

#ifdef SNAPLLM_HAS_KQUANTS

namespace {

// Threads share whole vectors of columns, of any format.
constexpr int32_t kShareColumns = 16;

#ifdef SNAPLLM_HAS_WIDE_KQUANTS
using Q4K = Q4KAvx512;
using Q5K = Q5KAvx512;
using Q6K = Q6KAvx512;
#else
using Q4K = Q4KAvx2;
using Q5K = Q5KAvx2;
using Q6K = Q6KAvx2;
#endif

}  // namespace

bool has_kquant_kernel() { return true; }

void multiply_kquant(const KQuantArgs& args, int share, int num_shares) {
  const auto [first, last] = column_share(args.num_columns, kShareColumns, share, num_shares);
  switch (args.type) {
    case KQuantType::kQ2K: return KQuantProduct<Q2KAvx2>(args).compute(first, last);
    case KQuantType::kQ3K: return KQuantProduct<Q3KAvx2>(args).compute(first, last);
    case KQuantType::kQ4K: return KQuantProduct<Q4K>(args).compute(first, last);
    case KQuantType::kQ5K: return KQuantProduct<Q5K>(args).compute(first, last);
    case KQuantType::kQ6K: return KQuantProduct<Q6K>(args).compute(first, last);
    case KQuantType::kIq4Xs: return KQuantProduct<Iq4XsAvx2>(args).compute(first, last);
    case KQuantType::kIq4Nl: return KQuantProduct<Iq4NlAvx2>(args).compute(first, last);
  }
}

#else

bool has_kquant_kernel() { return false; }

void multiply_kquant(const KQuantArgs&, int, int) {}

#endif

}  // namespace snapllm
