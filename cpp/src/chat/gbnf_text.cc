#include "chat/gbnf_text.h"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace snapllm {
namespace {

constexpr size_t kMaxBytes = size_t{4} << 20;
// The names of properties that an object must not have are one parenthesis a letter.
constexpr int kMaxDepth = 200;
// What llama.cpp repeats; it takes more as without end where it is the upper bound.
constexpr uint64_t kMaxTimes = 2000;
constexpr uint64_t kWithoutEnd = std::numeric_limits<uint64_t>::max();
// Of the rules that the parser makes of the text, about.
constexpr uint64_t kMaxParsedBytes = uint64_t{64} << 20;
constexpr uint64_t kElementBytes = 8;
constexpr uint64_t kRuleBytes = 128;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_of_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || is_digit(c);
}

class TextScan {
 public:
  explicit TextScan(std::string_view text) : text_(text) {}

  std::string fault() {
    if (text_.size() > kMaxBytes) return "it is too long";
    while (at_ < text_.size() && fault_.empty()) step();
    return fault_;
  }

 private:
  void step() {
    const char c = text_[at_++];
    switch (c) {
      case '"': skip_to("\"", true); break;
      case '[': skip_to("]", true); break;
      case '<': skip_to(">", false); break;
      case '#': skip_comment(); break;
      case '(': open(); break;
      case ')': --depth_; item_ = 1; break;
      case '.': item_ = 1; break;
      case '*': repeat(0, kWithoutEnd); break;
      case '+': repeat(1, kWithoutEnd); break;
      case '?': repeat(0, 1); break;
      case '{': counted(); break;
      default:
        if (is_of_name(c)) name();
    }
  }

  // These end in the same places as in llama.cpp's reader: one that seemed longer would hide
  // what follows it.
  void skip_to(std::string_view closer, bool has_escapes) {
    const size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != closer[0]) {
      at_ += has_escapes && text_[at_] == '\\' ? 2 : 1;
    }
    at_ = std::min(at_ + 1, text_.size());
    item_ = has_escapes ? at_ - begin : 1;
  }

  void skip_comment() {
    while (at_ < text_.size() && text_[at_] != '\r' && text_[at_] != '\n') ++at_;
  }

  void skip_space() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') skip_comment();
      else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') ++at_;
      else return;
    }
  }

  void open() {
    add(kRuleBytes + longest_name_);
    if (++depth_ > kMaxDepth) {
      fault_ = "it is nested too deeply (at most " + std::to_string(kMaxDepth) + " levels)";
    }
  }

  void name() {
    const size_t begin = at_ - 1;
    while (at_ < text_.size() && is_of_name(text_[at_])) ++at_;
    longest_name_ = std::max<uint64_t>(longest_name_, at_ - begin);
    add(kElementBytes);
    item_ = 1;
  }

  // Saturates: what is larger is too much anyway.
  uint64_t number() {
    uint64_t value = 0;
    for (; at_ < text_.size() && is_digit(text_[at_]); ++at_) {
      value = std::min<uint64_t>(value * 10 + static_cast<uint64_t>(text_[at_] - '0'), 1 << 30);
    }
    skip_space();
    return value;
  }

  void counted() {
    skip_space();
    const uint64_t low = number();
    uint64_t high = low;
    if (at_ < text_.size() && text_[at_] == ',') {
      ++at_;
      skip_space();
      high = at_ < text_.size() && is_digit(text_[at_]) ? number() : kWithoutEnd;
    }
    if (low > kMaxTimes) {
      fault_ = "something is repeated more than " + std::to_string(kMaxTimes) + " times";
    } else if (high < low) {
      fault_ = "the repetition {" + std::to_string(low) + "," + std::to_string(high) +
               "} is out of order";
    } else {
      repeat(low, high > kMaxTimes ? kWithoutEnd : high);
    }
  }

  // x{2,4} is written out as x x and two rules, each of which holds another x.
  void repeat(uint64_t low, uint64_t high) {
    const uint64_t num_rules = high == kWithoutEnd ? 1 : high - low;
    add(low * item_ * kElementBytes);
    add(num_rules * (item_ * kElementBytes + kRuleBytes + longest_name_));
    item_ = low * item_ + (num_rules > 0 ? 1 : 0);
  }

  void add(uint64_t bytes) {
    parsed_bytes_ += bytes;
    if (parsed_bytes_ > kMaxParsedBytes) fault_ = "its repetitions are too much together";
  }

  const std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  uint64_t item_ = 0;  // elements of what a repetition would repeat, at most
  uint64_t longest_name_ = 0;
  uint64_t parsed_bytes_ = 0;
  std::string fault_;
};

}  // namespace

std::string gbnf_text_fault(std::string_view grammar) { return TextScan(grammar).fault(); }

}  // namespace snapllm
