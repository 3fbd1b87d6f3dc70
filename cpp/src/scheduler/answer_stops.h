// Finds a request's stop strings in what its answer says: not in reasoning or in calls, whose
// markup a stop string may well occur in.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "snapllm/chat_prompt.h"

namespace snapllm {

// Text that may be the beginning of a stop string or of markup is held back until it is decided,
// so that no part of a stop string is ever passed on.
class AnswerStops {
 public:
  // Empty strings are ignored. Text without markup is all said.
  explicit AnswerStops(std::vector<std::string> stops, AnswerMarkup markup = {});

  // Returns the text that can be passed on. After a match nothing more comes.
  std::string push(const std::string& text);
  // Returns what was held back; it may still match.
  std::string finish();

  bool matched() const { return !match_.empty(); }
  // The stop string that matched; empty before.
  const std::string& match() const { return match_; }

 private:
  enum class Zone { kReasoning, kGap, kSaid, kCall };
  // The first place of any of the strings, and which it is.
  struct Place {
    size_t at = std::string::npos;
    const std::string* what = nullptr;
  };

  Place first_of(const std::vector<std::string>& strings) const;
  // Where a beginning of one of the strings stands at the end; the end where none does.
  size_t open_beginning(const std::vector<std::string>& strings) const;
  // Takes the first bytes off what is held back.
  std::string take(size_t num_bytes);
  // Each looks at what is held back; false where more text is wanted.
  bool read_reasoning(std::string& passed);
  bool read_gap(std::string& passed);
  bool read_said(std::string& passed, bool is_end);
  std::string read(bool is_end);

  std::vector<std::string> stops_;
  const AnswerMarkup markup_;
  const std::vector<std::string> reasoning_starts_;
  Zone zone_;
  bool has_said_ = false;  // anything but whitespace
  std::string pending_;
  std::string match_;
};

}  // namespace snapllm
