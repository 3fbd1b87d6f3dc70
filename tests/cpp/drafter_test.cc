#include "scheduler/drafter.h"

#include "check.h"

namespace snapllm {
namespace {

using Tokens = std::vector<Token>;

TEST(drafter, guesses_what_followed_the_same_tokens_before) {
  const Tokens tokens = {1, 2, 3, 4, 5, 6, 9, 1, 2, 3};
  CHECK(lookup_draft(tokens, 3) == (Tokens{4, 5, 6}));
  CHECK(lookup_draft(tokens, 1) == (Tokens{4}));
  CHECK(lookup_draft(tokens, 0).empty());
  CHECK(lookup_draft(tokens, 100) == (Tokens{4, 5, 6, 9, 1, 2, 3}));
}

TEST(drafter, two_tokens_in_common_are_too_few) {
  CHECK(lookup_draft(Tokens{1, 2, 3, 9, 7, 2, 3}, 4).empty());
  CHECK(lookup_draft(Tokens{1, 2, 3}, 4).empty());
  CHECK(lookup_draft(Tokens{}, 4).empty());
}

TEST(drafter, the_longest_match_wins_and_of_equal_ones_the_latest) {
  CHECK(lookup_draft(Tokens{0, 1, 2, 3, 10, 5, 1, 2, 3, 11, 0, 1, 2, 3}, 1) == (Tokens{10}));
  CHECK(lookup_draft(Tokens{1, 2, 3, 10, 5, 1, 2, 3, 11, 0, 1, 2, 3}, 1) == (Tokens{11}));
}

TEST(drafter, a_repetition_goes_on) {
  CHECK(lookup_draft(Tokens{7, 7, 7, 7, 7}, 4) == (Tokens{7}));
}

TEST(drafter, images_are_not_guessed) {
  CHECK(lookup_draft(Tokens{1, 2, 3, 4, -5, 6, 1, 2, 3}, 4) == (Tokens{4}));
}

TEST(drafter, success_lengthens_the_guess_and_failure_pauses) {
  const Tokens tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 1, 2, 3};
  Drafter drafter(8);
  CHECK_EQ(drafter.propose(tokens, 100).size(), 4);
  drafter.note(4, 4);
  CHECK_EQ(drafter.propose(tokens, 100).size(), 8);
  drafter.note(8, 8);
  CHECK_EQ(drafter.propose(tokens, 100).size(), 8);  // the bound
  CHECK_EQ(drafter.propose(tokens, 2).size(), 2);    // the room
  drafter.note(8, 0);
  CHECK(drafter.propose(tokens, 100).empty());
  CHECK_EQ(drafter.propose(tokens, 100).size(), 1);
  drafter.note(1, 0);
  for (int i = 0; i < 2; ++i) CHECK(drafter.propose(tokens, 100).empty());
  CHECK_EQ(drafter.propose(tokens, 100).size(), 1);
  CHECK_EQ(drafter.num_proposed(), 21);
  CHECK_EQ(drafter.num_accepted(), 12);
  CHECK(Drafter(0).propose(tokens, 100).empty());
}

}  // namespace
}  // namespace snapllm
