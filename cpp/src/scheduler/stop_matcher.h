// Finds stop strings in a stream of text.
#pragma once

#include <string>
#include <vector>

namespace snapllm {

// Text that may be the beginning of a stop string is held back until it is
// decided, so that no part of one is ever passed on.
class StopMatcher {
 public:
  // Empty strings are ignored.
  explicit StopMatcher(std::vector<std::string> stops);

  // Returns the text that can be passed on. After a match nothing more comes.
  std::string push(std::string text);
  // Returns what was held back; for an end that is no match.
  std::string finish();

  bool matched() const { return !match_.empty(); }
  // The stop string that matched; empty before.
  const std::string& match() const { return match_; }

 private:
  size_t held_back_bytes() const;

  std::vector<std::string> stops_;
  std::string pending_;
  std::string match_;
};

}  // namespace snapllm
