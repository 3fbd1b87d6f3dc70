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
  std::vector<StoredPiece*> pieces;
  for (Token token = 0; token < 500; ++token) {
    Tokens tokens = head;
    tokens.push_back(token);
    pieces.push_back(&index.insert(piece_of(tokens)));
  }
  Tokens prompt = head;
  prompt.push_back(499 + 1);
  const auto found = [&] {
    const IndexMatch match = index.match(kScope, prompt, 9);
    REQUIRE(match.parts.size() == 1);
    CHECK_EQ(match.num_tokens, 8);
    return match.parts[0].piece;
  };
  for (StoredPiece* piece : {pieces[3], pieces[250], pieces[499]}) {
    piece->state = std::make_shared<const StateBytes>();
    index.note_in_ram(*piece, true);
    CHECK(found() == piece);
    piece->state = nullptr;
    index.note_in_ram(*piece, false);
  }
  pieces[7]->state = std::make_shared<const StateBytes>();
  index.note_in_ram(*pieces[7], true);
  index.remove(pieces[7]->id.key);
  CHECK(found()->state == nullptr);
}

TEST(piece_index, follows_blocks_to_the_piece_that_has_most_in_common) {
  std::mt19937 random(3);
  PieceIndex index;
  std::set<Tokens> prompts;  // of one to three blocks, which begin alike
  for (int i = 0; i < 60; ++i) {
    Tokens tokens;
    for (int block = 0; block < 3; ++block) {
      const Token first = static_cast<Token>(random() % 3);
      for (int k = 0; k < kBlockTokens; ++k) tokens.push_back(first + (k > 250 ? block : 0));
    }
    tokens.resize(1 + random() % tokens.size());
    prompts.insert(tokens);
    const auto ranges = cut_into_pieces(KvKind::kBlocks, static_cast<int32_t>(tokens.size()));
    Hash128 parent = kScope.root;
    for (const auto [begin, end] : ranges) {
      StoredPiece piece;
      piece.id = make_piece(parent, KvKind::kBlocks, begin,
                            std::span(tokens).subspan(static_cast<size_t>(begin),
                                                      static_cast<size_t>(end - begin)));
      parent = piece.id.key;
      if (index.find(parent) == nullptr) index.insert(std::move(piece));
    }
  }
  for (const Tokens& tokens : prompts) {
    for (const int32_t most : {static_cast<int32_t>(tokens.size()), 300, 255}) {
      const int32_t wanted = std::min(most, static_cast<int32_t>(tokens.size()));
      CHECK_EQ(index.match(kScope, tokens, most).num_tokens, wanted);
    }
  }
}

}  // namespace
}  // namespace snapllm
