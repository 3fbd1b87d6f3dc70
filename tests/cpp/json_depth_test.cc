#include "chat/json_depth.h"

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

}  // namespace
}  // namespace snapllm
