#include "store/piece.h"

#include <algorithm>

namespace snapllm {

Hash128 root_key(const Hash128& fingerprint, KvKind kind, std::string_view cache_namespace) {
  return hash128(cache_namespace.data(), cache_namespace.size(),
                 hash128(&kind, sizeof kind, fingerprint));
}

PieceId make_piece(const Hash128& parent, KvKind kind, int32_t begin,
                   std::span<const Token> tokens) {
  PieceId piece;
  piece.parent = parent;
  piece.kind = kind;
  piece.begin = begin;
  piece.end = begin + static_cast<int32_t>(tokens.size());
  piece.tokens.assign(tokens.begin(), tokens.end());
  piece.key = hash128(tokens.data(), tokens.size_bytes(), parent);
  return piece;
}

std::vector<TokenRange> cut_into_pieces(KvKind kind, int32_t num_tokens) {
  if (num_tokens == 0) return {};
  if (kind == KvKind::kCheckpoints) return {{0, num_tokens}};
  std::vector<TokenRange> ranges;
  for (int32_t begin = 0; begin < num_tokens; begin += kBlockTokens) {
    ranges.push_back({begin, std::min(begin + kBlockTokens, num_tokens)});
  }
  return ranges;
}

std::vector<Hash128> piece_keys(KvKind kind, const Hash128& root, std::span<const Token> tokens) {
  std::vector<Hash128> keys;
  Hash128 parent = root;
  for (const auto [begin, end] : cut_into_pieces(kind, static_cast<int32_t>(tokens.size()))) {
    const auto own = tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    parent = hash128(own.data(), own.size_bytes(), parent);
    keys.push_back(parent);
  }
  return keys;
}

int32_t common_prefix(std::span<const Token> a, std::span<const Token> b) {
  const auto [end, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<int32_t>(end - a.begin());
}

}  // namespace snapllm
