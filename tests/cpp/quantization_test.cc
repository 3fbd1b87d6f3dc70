#include "backend/quantization.h"

#include <string>

#include "check.h"

namespace snapllm {
namespace {

TEST(quantization, is_called_as_files_are) {
  CHECK_EQ(quantization_name(LLAMA_FTYPE_ALL_F32), "F32");
  CHECK_EQ(quantization_name(LLAMA_FTYPE_MOSTLY_F16), "F16");
  CHECK_EQ(quantization_name(LLAMA_FTYPE_MOSTLY_Q4_0), "Q4_0");
  CHECK_EQ(quantization_name(LLAMA_FTYPE_MOSTLY_Q2_K), "Q2_K");
  CHECK_EQ(quantization_name(LLAMA_FTYPE_MOSTLY_Q2_K_S), "Q2_K_S");
  CHECK_EQ(quantization_name(LLAMA_FTYPE_MOSTLY_Q3_K_L), "Q3_K_L");
  CHECK_EQ(quantization_name(LLAMA_FTYPE_MOSTLY_Q5_K_M), "Q5_K_M");
  CHECK_EQ(quantization_name(LLAMA_FTYPE_MOSTLY_Q6_K), "Q6_K");
  CHECK_EQ(quantization_name(LLAMA_FTYPE_MOSTLY_IQ4_XS), "IQ4_XS");
  CHECK_EQ(quantization_name(LLAMA_FTYPE_MOSTLY_IQ3_M), "IQ3_M");
  CHECK_EQ(quantization_name(LLAMA_FTYPE_MOSTLY_TQ1_0), "TQ1_0");
  CHECK_EQ(quantization_name(LLAMA_FTYPE_MOSTLY_MXFP4_MOE), "MXFP4");
}

TEST(quantization, is_a_guess_where_the_file_does_not_say) {
  const auto guessed = static_cast<llama_ftype>(LLAMA_FTYPE_MOSTLY_Q4_K_M | LLAMA_FTYPE_GUESSED);
  CHECK_EQ(quantization_name(guessed), "Q4_K_M");
  CHECK_EQ(quantization_name(static_cast<llama_ftype>(999)), "unknown");
}

TEST(quantization, is_one_word_whatever_the_type) {
  for (int type = 0; type < 64; ++type) {
    const std::string name = quantization_name(static_cast<llama_ftype>(type));
    CHECK(!name.empty() && name.find(' ') == std::string::npos);
  }
}

}  // namespace
}  // namespace snapllm
