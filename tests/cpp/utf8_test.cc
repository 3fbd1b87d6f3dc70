#include "base/utf8.h"

#include "check.h"

namespace snapllm {
namespace {

const std::string kReplacement = "\xEF\xBF\xBD";

// The stream's text when its bytes come one by one.
std::string decode_bytewise(std::string_view bytes) {
  Utf8Decoder decoder;
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) text += decoder.push(bytes.substr(i, 1));
  return text + decoder.finish();
}

std::string decode_whole(std::string_view bytes) {
  Utf8Decoder decoder;
  std::string text = decoder.push(bytes);
  return text + decoder.finish();
}

TEST(utf8, held_back_until_complete) {
  Utf8Decoder decoder;
  CHECK_EQ(decoder.push("a\xF0\x9F"), "a");
  CHECK_EQ(decoder.push("\x98"), "");
  CHECK_EQ(decoder.push("\x80z"), "\xF0\x9F\x98\x80z");
  CHECK_EQ(decoder.finish(), "");
}

TEST(utf8, incomplete_end_is_one_replacement) {
  Utf8Decoder decoder;
  CHECK_EQ(decoder.push("a\xE2\x82"), "a");
  CHECK_EQ(decoder.finish(), kReplacement);
  CHECK_EQ(decoder.finish(), "");
}

TEST(utf8, valid_text_passes_unchanged_however_it_is_split) {
  const std::string text = "A\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF"
                           "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\x7F";
  CHECK_EQ(decode_whole(text), text);
  CHECK_EQ(decode_bytewise(text), text);
  CHECK_EQ(decode_whole(std::string("\0", 1)), std::string("\0", 1));
}

TEST(utf8, impossible_bytes_are_replaced_and_the_rest_survives) {
  const std::pair<std::string, int> cases[] = {
      {"\x80", 1},          {"\xFF", 1},          {"\xC0\x80", 2},     // stray, never valid, overlong
      {"\xE0\x80\x80", 3},  {"\xED\xA0\x80", 3},                       // overlong, surrogate
      {"\xF4\x90\x80\x80", 4}, {"\xF5", 1},                            // past U+10FFFF
      {"\xE2\x82", 1},      {"\xF0\x9F\x98", 1},                       // broken off by the next byte
  };
  for (const auto& [bytes, num_replacements] : cases) {
    std::string expected = "a";
    for (int i = 0; i < num_replacements; ++i) expected += kReplacement;
    expected += "b";
    CHECK_EQ(decode_whole("a" + bytes + "b"), expected);
    CHECK_EQ(decode_bytewise("a" + bytes + "b"), expected);
  }
}

TEST(utf8, text_out_of_a_file_keeps_what_its_end_was_cut_off_from) {
  CHECK_EQ(valid_utf8("name \xE2\x82"), "name " + kReplacement);
  CHECK_EQ(valid_utf8("\xFFname"), kReplacement + "name");
}

TEST(utf8, broken_off_character_is_followed_by_a_whole_one) {
  CHECK_EQ(decode_bytewise("\xE2\x82\xC3\xA9"), kReplacement + "\xC3\xA9");
}

}  // namespace
}  // namespace snapllm
