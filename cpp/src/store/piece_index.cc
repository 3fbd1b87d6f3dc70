#include "store/piece_index.h"

#include <algorithm>
#include <utility>

namespace snapllm {
namespace {

// Looked at on each side of where a prompt would stand among pieces in their order.
constexpr size_t kMaxCandidates = 8;

bool begins_with(std::span<const Token> tokens, std::span<const Token> head) {
  return tokens.size() >= head.size() && std::equal(head.begin(), head.end(), tokens.begin());
}

// Whether that many of the piece's first tokens are worth a restore: few are if they are all.
bool is_worth(const StoredPiece& piece, int32_t num_tokens) {
  const auto own_tokens = static_cast<int32_t>(piece.id.tokens.size());
  return num_tokens >= std::min(PieceIndex::kMinPartTokens, own_tokens);
}

// A piece, and how many of its first tokens the rest of a prompt begins with, too.
struct Candidate {
  StoredPiece* piece = nullptr;
  int32_t num_tokens = 0;
};

// Whether it saves more: of as many tokens what is in RAM.
bool is_better(const Candidate& one, const Candidate& other) {
  if (one.num_tokens != other.num_tokens) return one.num_tokens > other.num_tokens;
  return other.piece != nullptr && one.piece->state != nullptr && other.piece->state == nullptr;
}

// Where the rest of a prompt, from `begin` on, leaves what is stored; nowhere if one ends first.
Difference difference_from(const Candidate& closest, const StoredPiece& any, int32_t begin,
                                std::span<const Token> rest) {
  if (rest.empty()) return {};
  const StoredPiece& piece = closest.piece != nullptr ? *closest.piece : any;
  const auto place = static_cast<size_t>(closest.num_tokens);
  if (place >= std::min(piece.id.tokens.size(), rest.size())) return {};
  return {begin + closest.num_tokens, piece.id.tokens[place]};
}

}  // namespace

StoredPiece* PieceIndex::find(const Hash128& key) const {
  const auto it = pieces_.find(key);
  return it == pieces_.end() ? nullptr : it->second.get();
}

StoredPiece& PieceIndex::insert(StoredPiece piece) {
  const Hash128 key = piece.id.key;
  auto& slot = pieces_[key];
  slot = std::make_unique<StoredPiece>(std::move(piece));
  children_[slot->id.parent].insert(slot.get());
  if (slot->id.kind == KvKind::kCheckpoints) ++checkpoint_ends_[slot->id.parent][slot->id.end];
  return *slot;
}

void PieceIndex::remove(const Hash128& key) {
  const auto it = pieces_.find(key);
  if (it == pieces_.end()) return;
  const PieceId& id = it->second->id;
  erase_child(children_, *it->second);
  erase_child(children_in_ram_, *it->second);
  if (id.kind == KvKind::kCheckpoints) {
    auto& ends = checkpoint_ends_[id.parent];
    if (--ends[id.end] == 0) ends.erase(id.end);
    if (ends.empty()) checkpoint_ends_.erase(id.parent);
  }
  pieces_.erase(it);
}

bool PieceIndex::TokenOrder::operator()(const StoredPiece* a, const StoredPiece* b) const {
  return std::ranges::lexicographical_compare(a->id.tokens, b->id.tokens);
}

bool PieceIndex::TokenOrder::operator()(const StoredPiece* a, std::span<const Token> b) const {
  return std::ranges::lexicographical_compare(a->id.tokens, b);
}

bool PieceIndex::TokenOrder::operator()(std::span<const Token> a, const StoredPiece* b) const {
  return std::ranges::lexicographical_compare(a, b->id.tokens);
}

void PieceIndex::note_in_ram(StoredPiece& piece, bool is_in_ram) {
  if (piece.id.kind != KvKind::kBlocks) return;
  if (is_in_ram) {
    children_in_ram_[piece.id.parent].insert(&piece);
  } else {
    erase_child(children_in_ram_, piece);
  }
}

void PieceIndex::erase_child(ChildrenByParent& all, StoredPiece& piece) {
  const auto siblings = all.find(piece.id.parent);
  if (siblings == all.end()) return;
  siblings->second.erase(&piece);
  if (siblings->second.empty()) all.erase(siblings);
}

void PieceIndex::add_closest(const ChildrenByParent& all, const Hash128& parent,
                             std::span<const Token> rest, std::vector<StoredPiece*>& found) {
  const auto siblings = all.find(parent);
  if (siblings == all.end()) return;
  const Children& children = siblings->second;
  // In order those with most in common stand right beside where the rest would stand.
  const auto after = children.lower_bound(rest);
  auto it = after;
  for (size_t i = 0; i < kMaxCandidates && it != children.end(); ++i) found.push_back(*it++);
  it = after;
  for (size_t i = 0; i < kMaxCandidates && it != children.begin(); ++i) found.push_back(*--it);
  // Very short ones can be of use only whole, and may have many between.
  const auto longest = std::min<size_t>(rest.size(), kMinPartTokens - 1);
  for (size_t size = 1; size <= longest; ++size) {
    it = children.find(rest.first(size));
    if (it != children.end()) found.push_back(*it);
  }
}

IndexMatch PieceIndex::match(const StoreScope& scope, std::span<const Token> prompt,
                             int32_t max_tokens) {
  max_tokens = std::min(max_tokens, static_cast<int32_t>(prompt.size()));
  return scope.kind == KvKind::kBlocks ? match_blocks(scope, prompt, max_tokens)
                                       : match_checkpoints(scope, prompt, max_tokens);
}

IndexMatch PieceIndex::match_blocks(const StoreScope& scope, std::span<const Token> prompt,
                                    int32_t max_tokens) {
  IndexMatch match;
  Hash128 parent = scope.root;
  for (;;) {
    const auto children = children_.find(parent);
    if (children == children_.end()) return match;
    const auto rest = prompt.subspan(static_cast<size_t>(match.num_tokens));
    Candidate closest, best;
    std::vector<StoredPiece*> candidates;
    add_closest(children_, parent, rest, candidates);
    add_closest(children_in_ram_, parent, rest, candidates);
    for (StoredPiece* child : candidates) {
      const int32_t common = common_prefix(child->id.tokens, rest);
      if (common > closest.num_tokens) closest = {child, common};
      const int32_t usable = std::min(common, max_tokens - match.num_tokens);
      if (is_worth(*child, usable) && is_better({child, usable}, best)) best = {child, usable};
    }
    match.difference = difference_from(closest, **children->second.begin(), match.num_tokens, rest);
    if (best.piece == nullptr) return match;
    match.parts.push_back({best.piece, best.num_tokens});
    match.num_tokens += best.num_tokens;
    const auto own_tokens = static_cast<int32_t>(best.piece->id.tokens.size());
    if (best.num_tokens < own_tokens || !best.piece->id.is_full_block()) return match;
    parent = best.piece->id.key;
  }
}

StoredPiece& PieceIndex::closest_checkpoint(const Hash128& root,
                                            std::span<const Token> prompt) const {
  const Children& all = children_.at(root);
  const auto after = all.lower_bound(prompt);
  if (after == all.begin()) return **after;
  StoredPiece& before = **std::prev(after);
  if (after == all.end()) return before;
  // Of two that share as much the one before may end there; the other goes on.
  const int32_t num_after = common_prefix((*after)->id.tokens, prompt);
  return num_after >= common_prefix(before.id.tokens, prompt) ? **after : before;
}

IndexMatch PieceIndex::match_checkpoints(const StoreScope& scope, std::span<const Token> prompt,
                                         int32_t max_tokens) {
  IndexMatch match;
  const auto ends = checkpoint_ends_.find(scope.root);
  if (ends == checkpoint_ends_.end()) return match;
  StoredPiece& closest = closest_checkpoint(scope.root, prompt);
  const int32_t num_common = common_prefix(closest.id.tokens, prompt);
  match.difference = difference_from({&closest, num_common}, closest, 0, prompt);
  std::vector<StoredPiece*> candidates;
  PrefixHash128 keys(prompt.data(), scope.root);
  for (const auto& [end, count] : ends->second) {
    if (end > max_tokens) break;
    StoredPiece* piece = find(keys.hash(static_cast<size_t>(end) * sizeof(Token)));
    if (piece != nullptr) candidates.push_back(piece);
  }
  const auto longest = std::find_if(
      candidates.rbegin(), candidates.rend(),
      [&](const StoredPiece* piece) { return begins_with(prompt, piece->id.tokens); });
  if (longest == candidates.rend()) return match;
  match.num_tokens = (*longest)->id.end;
  match.parts.push_back({*longest, match.num_tokens});
  return match;
}

std::vector<StoredPiece*> PieceIndex::chain(const StoreScope& scope,
                                            std::span<const Token> tokens) {
  std::vector<StoredPiece*> pieces;
  const auto ranges = cut_into_pieces(scope.kind, static_cast<int32_t>(tokens.size()));
  const auto keys = piece_keys(scope.kind, scope.root, tokens);
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto [begin, end] = ranges[i];
    const auto own = tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    StoredPiece* piece = find(keys[i]);
    if (piece == nullptr || !std::ranges::equal(piece->id.tokens, own)) break;
    pieces.push_back(piece);
  }
  return pieces;
}

std::vector<Hash128> PieceIndex::superseded_by(const StoredPiece& piece) const {
  std::vector<Hash128> keys;
  if (piece.id.kind != KvKind::kBlocks) return keys;
  const auto children = children_.find(piece.id.parent);
  if (children == children_.end()) return keys;
  // What is a prefix of the first `size` tokens stands before them in order. The piece right before
  // them is the longest prefix; or else no prefix is longer than what it has in common with them:
  // a longer one would stand in between.
  const std::span<const Token> tokens = piece.id.tokens;
  for (size_t size = tokens.size(); size > 0;) {
    auto it = children->second.lower_bound(tokens.first(size));
    if (it == children->second.begin()) break;
    const StoredPiece* shorter = *--it;
    const auto common = static_cast<size_t>(common_prefix(shorter->id.tokens, tokens));
    if (common == shorter->id.tokens.size()) {
      if (!is_pinned(shorter->id.key)) keys.push_back(shorter->id.key);
      size = common;
    } else {
      size = common;
      it = children->second.find(tokens.first(size));
      if (it != children->second.end() && !is_pinned((*it)->id.key)) keys.push_back((*it)->id.key);
    }
  }
  return keys;
}

std::vector<StoredPiece*> PieceIndex::substitutes_of(StoredPiece& piece) const {
  if (piece.id.kind != KvKind::kBlocks || piece.id.is_full_block()) return {&piece};
  std::vector<StoredPiece*> pieces;
  const Children& siblings = children_.at(piece.id.parent);
  for (auto it = siblings.find(&piece);
       it != siblings.end() && begins_with((*it)->id.tokens, piece.id.tokens); ++it) {
    pieces.push_back(*it);
  }
  return pieces;
}

void PieceIndex::pin(const StoreScope& scope, std::span<const Token> tokens) {
  for (const Hash128& key : piece_keys(scope.kind, scope.root, tokens)) ++pins_[key];
}

void PieceIndex::unpin(const StoreScope& scope, std::span<const Token> tokens) {
  for (const Hash128& key : piece_keys(scope.kind, scope.root, tokens)) {
    const auto it = pins_.find(key);
    if (it != pins_.end() && --it->second == 0) pins_.erase(it);
  }
}

}  // namespace snapllm
