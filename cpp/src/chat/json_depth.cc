#include "chat/json_depth.h"

#include <algorithm>
#include <utility>

namespace snapllm {

int json_depth(std::string_view json) {
  JsonNesting nesting;
  nesting.push(json);
  return nesting.deepest();
}

Status check_json_depth(std::string_view json, const std::string& field) {
  constexpr int kMaxDepth = 100;
  if (json_depth(json) <= kMaxDepth) return {};
  return {StatusCode::kInvalidRequest, field + " must not be nested so deeply (at most " +
                                           std::to_string(kMaxDepth) + " levels)"};
}

void JsonNesting::push(std::string_view piece) {
  lowest_ = depth_;
  for (const char c : piece) {
    if (in_string_) {
      if (is_escaped_) is_escaped_ = false;
      else if (c == '\\') is_escaped_ = true;
      else if (c == '"') in_string_ = false;
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '[' || c == '{') {
      deepest_ = std::max(deepest_, ++depth_);
    } else if (c == ']' || c == '}') {
      lowest_ = std::min(lowest_, --depth_);
    }
  }
}

size_t NestingBound::push(std::string_view piece, int limit) {
  for (size_t i = 0; i < piece.size(); ++i) {
    const char c = piece[i];
    if (c == '"' && is_escaped_) {
      // A string begins here, or goes on: another text may begin behind it.
      depth_inside_ = std::max(depth_inside_, std::exchange(depth_outside_, 0));
    } else if (c == '"') {
      std::swap(depth_inside_, depth_outside_);
    } else if (c == '[' || c == '{') {
      if (depth_outside_ == limit) return i;
      ++depth_outside_;
    } else if (c == ']' || c == '}') {
      depth_outside_ = std::max(0, depth_outside_ - 1);
    }
    is_escaped_ = c == '\\' && !is_escaped_;
  }
  return std::string_view::npos;
}

}  // namespace snapllm
