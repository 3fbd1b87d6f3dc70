#include "base/utf8.h"

#include <cstddef>

namespace snapllm {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

enum class Verdict { kValid, kIncomplete, kInvalid };

struct Character {
  Verdict verdict;
  size_t length;  // bytes the verdict is about
};

// The range the second byte must lie in: excludes overlong forms, surrogates and
// code points past U+10FFFF (Unicode 15, table 3-7).
bool second_byte_fits(unsigned char first, unsigned char second) {
  switch (first) {
    case 0xE0: return second >= 0xA0 && second <= 0xBF;
    case 0xED: return second >= 0x80 && second <= 0x9F;
    case 0xF0: return second >= 0x90 && second <= 0xBF;
    case 0xF4: return second >= 0x80 && second <= 0x8F;
    default: return second >= 0x80 && second <= 0xBF;
  }
}

// REQUIRES: !bytes.empty()
Character first_character(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char first = at(0);
  if (first < 0x80) return {Verdict::kValid, 1};
  size_t length = 0;
  if (first >= 0xC2 && first <= 0xDF) length = 2;
  else if (first >= 0xE0 && first <= 0xEF) length = 3;
  else if (first >= 0xF0 && first <= 0xF4) length = 4;
  else return {Verdict::kInvalid, 1};
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {Verdict::kIncomplete, i};
    const bool fits = i == 1 ? second_byte_fits(first, at(1)) : (at(i) & 0xC0) == 0x80;
    if (!fits) return {Verdict::kInvalid, i};
  }
  return {Verdict::kValid, length};
}

}  // namespace

std::string Utf8Decoder::push(std::string_view bytes) {
  pending_.append(bytes);
  return decode(false);
}

std::string Utf8Decoder::finish() { return decode(true); }

std::string Utf8Decoder::decode(bool final) {
  std::string text;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Character character = first_character(rest);
    if (character.verdict == Verdict::kIncomplete && !final) break;
    if (character.verdict == Verdict::kValid) {
      text.append(rest.substr(0, character.length));
    } else {
      text.append(kReplacement);
    }
    rest.remove_prefix(character.length);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return text;
}

std::string valid_utf8(std::string_view text) {
  Utf8Decoder decoder;
  std::string valid = decoder.push(text);  // in a sum either could come first
  return valid += decoder.finish();
}

}  // namespace snapllm
