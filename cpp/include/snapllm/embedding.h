// What a caller asks for who wants vectors instead of text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "snapllm/request.h"

namespace snapllm {

// How the vectors of an input's tokens become one.
enum class Pooling {
  kAuto,  // as the model was trained; the mean where its file does not say
  kMean,
  kLast,  // the last token's, which has seen all others
};

using Embedding = std::vector<float>;

struct EmbedRequest {
  std::string model_id;
  std::vector<std::vector<Token>> inputs;
  Pooling pooling = Pooling::kAuto;
  // The vectors' first components only, normalised again; 0 = all.
  int32_t dimensions = 0;
};

}  // namespace snapllm
