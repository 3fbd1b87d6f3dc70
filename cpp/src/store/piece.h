// The unit of the KV store: the KV of a run of tokens after a known prefix.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/hash.h"
#include "snapllm/request.h"
#include "snapllm/state_bytes.h"

namespace snapllm {

// Tokens of a full block.
inline constexpr int32_t kBlockTokens = 256;

// How a model's KV can be taken apart.
enum class KvKind : uint32_t {
  kBlocks = 0,       // by token range: full attention
  kCheckpoints = 1,  // whole states only: sliding window, recurrent, hybrid
};

// What identifies a piece; the state itself is kept by the tiers. Of kind kBlocks it
// is the KV of positions [begin, end), and its parent is the block before it (or the
// root). Of kind kCheckpoints it is the whole state after `end` tokens, begin is 0 and
// the parent is the root.
struct PieceId {
  Hash128 key;
  Hash128 parent;
  KvKind kind = KvKind::kBlocks;
  int32_t begin = 0;
  int32_t end = 0;
  std::vector<Token> tokens;  // those of [begin, end)

  bool is_full_block() const { return kind == KvKind::kBlocks && end - begin == kBlockTokens; }
};

// The key that a model's pieces of one kind in one namespace descend from. A model may have
// both kinds: with its projector, and without.
Hash128 root_key(const Hash128& fingerprint, KvKind kind, std::string_view cache_namespace);

PieceId make_piece(const Hash128& parent, KvKind kind, int32_t begin, std::span<const Token> tokens);

// A range of positions, [begin, end).
struct TokenRange {
  int32_t begin = 0;
  int32_t end = 0;
};

// The pieces of `num_tokens` tokens: full blocks and the tail, or one checkpoint; none of none.
std::vector<TokenRange> cut_into_pieces(KvKind kind, int32_t num_tokens);
// Their keys, in order.
std::vector<Hash128> piece_keys(KvKind kind, const Hash128& root, std::span<const Token> tokens);

// With how many of the same tokens both begin.
int32_t common_prefix(std::span<const Token> a, std::span<const Token> b);

}  // namespace snapllm
