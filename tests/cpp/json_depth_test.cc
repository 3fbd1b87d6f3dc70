#include "chat/json_depth.h"

#include <algorithm>
#include <random>
#include <string>

#include "check.h"

namespace snapllm {
namespace {

TEST(json_depth, counts_the_deepest_nesting) {
  CHECK_EQ(json_depth(""), 0);
  CHECK_EQ(json_depth("1"), 0);
  CHECK_EQ(json_depth("[]"), 1);
  CHECK_EQ(json_depth(R"([{"a":[1]},{}])"), 3);
  CHECK_EQ(json_depth("[[][][]]"), 2);
}

TEST(json_depth, counts_text_that_is_never_closed) {
  CHECK_EQ(json_depth(std::string(100'000, '[')), 100'000);
}

TEST(json_depth, brackets_in_strings_do_not_count) {
  CHECK_EQ(json_depth(R"(["[[[{{{"])"), 1);
  CHECK_EQ(json_depth(R"(["\"[[", [[]]])"), 3);
  CHECK_EQ(json_depth(R"(["\\", [[]]])"), 3);
}

TEST(json_depth, pieces_count_as_the_whole) {
  const std::string json = R"({"a\\": ["x\"[", {"b": [1]}], "c": "}"})";
  for (size_t cut = 0; cut <= json.size(); ++cut) {
    JsonNesting nesting;
    nesting.push(json.substr(0, cut));
    const int before = nesting.depth();
    nesting.push(json.substr(cut));
    CHECK_EQ(nesting.deepest(), json_depth(json));
    CHECK_EQ(nesting.depth(), 0);
    CHECK(nesting.lowest() <= before);
  }
}

// The deepest nesting of JSON that may begin at any bracket of the text.
int deepest_anywhere(const std::string& text) {
  int deepest = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '[' || text[i] == '{') deepest = std::max(deepest, json_depth(text.substr(i)));
  }
  return deepest;
}

TEST(json_depth, nothing_is_nested_deeper_than_its_bound_wherever_it_begins) {
  std::mt19937 random(1);
  const std::string alphabet = R"([[[{]}""\a)";
  int num_within = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (size_t i = random() % 40; i > 0; --i) text += alphabet[random() % alphabet.size()];
    const int limit = 1 + static_cast<int>(random() % 6);
    NestingBound bound;
    const size_t cut = random() % (text.size() + 1);
    size_t at = bound.push(text.substr(0, cut), limit);
    if (at == std::string::npos) {
      at = bound.push(text.substr(cut), limit);
      if (at != std::string::npos) at += cut;
    }
    CHECK(deepest_anywhere(text.substr(0, at)) <= limit);
    num_within += at == std::string::npos;
  }
  CHECK(num_within > 1000);
}

TEST(json_depth, json_that_is_no_deeper_than_the_bound_is_within_it) {
  std::string json = "0";
  for (int depth = 1; depth <= 20; ++depth) {
    json = R"({"key \" it": )" + json + R"(, "list": [1, "x\\"]})";
    NestingBound bound;
    CHECK_EQ(bound.push("It's 5\" wide: " + json, json_depth(json)), std::string::npos);
  }
}

}  // namespace
}  // namespace snapllm
