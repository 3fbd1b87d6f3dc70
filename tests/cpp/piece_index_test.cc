#include "store/piece_index.h"

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "check.h"

namespace snapllm {
namespace {

using Tokens = std::vector<Token>;

const StoreScope kScope{{1, 2}, {3, 4}, KvKind::kBlocks};

StoredPiece piece_of(const Tokens& tokens) {
  StoredPiece piece;
  piece.id = make_piece(kScope.root, KvKind::kBlocks, 0, tokens);
  return piece;
}

bool begins_with(const Tokens& tokens, const Tokens& head) {
  return tokens.size() >= head.size() && std::equal(head.begin(), head.end(), tokens.begin());
}

// Few different ones, so that many begin alike; mostly short.
Tokens random_tokens(std::mt19937& random) {
  Tokens tokens(1 + random() % (random() % 4 == 0 ? 40 : 12));
  for (Token& token : tokens) token = static_cast<Token>(random() % 2);
  return tokens;
}

// What there is to be found of a prompt's beginning, by a look at every piece.
int32_t longest_of(const std::set<Tokens>& stored, const Tokens& prompt, int32_t max_tokens) {
  int32_t longest = 0;
  for (const Tokens& tokens : stored) {
    const auto ends = std::mismatch(tokens.begin(), tokens.end(), prompt.begin(), prompt.end());
    const auto common = static_cast<int32_t>(ends.first - tokens.begin());
    const int32_t usable = std::min(common, max_tokens);
    const int32_t least = std::min(PieceIndex::kMinPartTokens, static_cast<int32_t>(tokens.size()));
    if (usable >= least) longest = std::max(longest, usable);
  }
  return longest;
}

TEST(piece_index, finds_among_many_what_a_look_at_each_of_them_finds) {
  std::mt19937 random(1);
  for (int round = 0; round < 40; ++round) {
    PieceIndex index;
    std::set<Tokens> stored;
    for (int i = 0; i < 200; ++i) {
      const Tokens tokens = random_tokens(random);
      if (!stored.insert(tokens).second) {
        stored.erase(tokens);
        index.remove(piece_of(tokens).id.key);
        continue;
      }
      StoredPiece& piece = index.insert(piece_of(tokens));
      std::set<Hash128> shorter;
      std::set<StoredPiece*> longer;
      for (const Tokens& other : stored) {
        StoredPiece* found = index.find(piece_of(other).id.key);
        if (other != tokens && begins_with(tokens, other)) shorter.insert(found->id.key);
        if (begins_with(other, tokens)) longer.insert(found);
      }
      const auto superseded = index.superseded_by(piece);
      CHECK(std::set(superseded.begin(), superseded.end()) == shorter);
      CHECK_EQ(superseded.size(), shorter.size());
      const auto substitutes = index.substitutes_of(piece);
      CHECK(std::set(substitutes.begin(), substitutes.end()) == longer);
    }
    for (int i = 0; i < 50; ++i) {
      const Tokens prompt = random_tokens(random);
      const auto max_tokens = static_cast<int32_t>(random() % (prompt.size() + 1));
      CHECK_EQ(index.match(kScope, prompt, max_tokens).num_tokens,
               longest_of(stored, prompt, max_tokens));
    }
  }
}

TEST(piece_index, pinned_pieces_are_superseded_by_none) {
  PieceIndex index;
  index.insert(piece_of({1, 2}));
  index.insert(piece_of({1, 2, 3}));
  index.pin(kScope, Tokens{1, 2});
  const auto keys = index.superseded_by(index.insert(piece_of({1, 2, 3, 4})));
  REQUIRE(keys.size() == 1);
  CHECK(keys[0] == piece_of({1, 2, 3}).id.key);
}

TEST(piece_index, of_pieces_that_hold_as_much_the_one_in_ram_is_taken) {
  PieceIndex index;
  const Tokens head{1, 2, 3, 4, 5, 6, 7, 8};
  for (Token token = 0; token < 20; ++token) {
    Tokens tokens = head;
    tokens.push_back(token);
    StoredPiece& piece = index.insert(piece_of(tokens));
    if (token == 7) piece.state = std::make_shared<const StateBytes>();
  }
  Tokens prompt = head;
  prompt.push_back(99);
  const IndexMatch match = index.match(kScope, prompt, 9);
  REQUIRE(match.parts.size() == 1);
  CHECK(match.parts[0].piece->state != nullptr);
  CHECK_EQ(match.num_tokens, 8);
}

}  // namespace
}  // namespace snapllm
