#include "backend/quantization.h"

#include <array>
#include <string_view>
#include <utility>

namespace snapllm {
namespace {

// Those that do not follow from llama.cpp's names.
constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kOwnNames = {
    {{"all F32", "F32"}, {"Q2_K - Medium", "Q2_K"}, {"IQ3_S mix - 3.66 bpw", "IQ3_M"}}};
constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kSizes = {
    {{" - Small", "_S"}, {" - Medium", "_M"}, {" - Large", "_L"}}};

}  // namespace

std::string quantization_name(llama_ftype type) {
  std::string_view name = llama_ftype_name(type);
  if (constexpr std::string_view kGuessed = "(guessed) "; name.starts_with(kGuessed)) {
    name.remove_prefix(kGuessed.size());
  }
  for (const auto& [theirs, ours] : kOwnNames) {
    if (name == theirs) return std::string(ours);
  }
  for (const auto& [theirs, ours] : kSizes) {
    if (name.ends_with(theirs)) {
      return std::string(name.substr(0, name.size() - theirs.size())).append(ours);
    }
  }
  return std::string(name.substr(0, name.find_first_of(" ,")));  // then comes what it takes
}

}  // namespace snapllm
