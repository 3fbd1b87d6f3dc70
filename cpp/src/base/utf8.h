// Turns a stream of token bytes into whole UTF-8 characters.
#pragma once

#include <string>
#include <string_view>

namespace snapllm {

// Holds back the bytes of a character that has not arrived whole; replaces bytes
// that can be no part of any character by U+FFFD.
class Utf8Decoder {
 public:
  // Returns the characters that are complete after `bytes`.
  std::string push(std::string_view bytes);
  // Returns what is left at the end of the stream; an incomplete character
  // becomes U+FFFD.
  std::string finish();

 private:
  std::string decode(bool final);

  std::string pending_;
};

// `text` with bytes that are no UTF-8 replaced by U+FFFD; for text out of files.
std::string valid_utf8(std::string_view text);

}  // namespace snapllm
