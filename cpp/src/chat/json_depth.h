// Bounds on nesting, checked before a recursive reader sees the text.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "snapllm/status.h"

namespace snapllm {

// Deepest nesting of brackets and braces outside string literals.
int json_depth(std::string_view json);

// Refuses JSON that is nested far deeper than any real schema: readers of JSON and of schemas in
// llama.cpp recurse, and would overflow the stack.
Status check_json_depth(std::string_view json, const std::string& field);

// The nesting of JSON that comes in pieces.
class JsonNesting {
 public:
  // Goes on with the next piece.
  void push(std::string_view piece);
  int depth() const { return depth_; }
  // The least depth in the last piece, where that began among it.
  int lowest() const { return lowest_; }
  int deepest() const { return deepest_; }

 private:
  int depth_ = 0;
  int lowest_ = 0;
  int deepest_ = 0;
  bool in_string_ = false;
  bool is_escaped_ = false;
};

// How deep any JSON in a text can be nested, wherever in it that begins. Nobody knows at a quote
// whether it begins a string or ends one: both are followed, and the deeper one counts.
class NestingBound {
 public:
  // Goes on with the next piece, up to a bracket by which something may be nested deeper than
  // `limit`; returns where in the piece that is, or npos.
  size_t push(std::string_view piece, int limit);

 private:
  int depth_outside_ = 0;  // if what comes next is in no string
  int depth_inside_ = 0;   // if it is
  bool is_escaped_ = false;
};

}  // namespace snapllm
