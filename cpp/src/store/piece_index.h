// The prefix tree: which pieces are known, which are pinned, and the longest stored prefix
// of a prompt.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "snapllm/output.h"
#include "store/piece.h"

namespace snapllm {

// A stored piece and where its state is.
struct StoredPiece {
  PieceId id;
  Hash128 fingerprint;
  StatePtr state;  // in RAM; null when it is on disk only
  uint64_t state_bytes = 0;
  uint64_t file_bytes = 0;
  bool on_disk = false;
  uint64_t write = 0;      // the number of its write that is under way; 0 = none
  uint64_t last_used = 0;  // of the store's logical clock
  std::chrono::steady_clock::time_point noted_at{};  // when its file was last said to be used

  bool is_writing() const { return write != 0; }
};

// Where in the store a model's prompts of one namespace are.
struct StoreScope {
  Hash128 fingerprint;
  Hash128 root;
  KvKind kind = KvKind::kBlocks;
};

struct IndexMatch {
  struct Part {
    StoredPiece* piece = nullptr;
    int32_t num_tokens = 0;  // of the piece's own, from its begin on
  };
  std::vector<Part> parts;
  int32_t num_tokens = 0;
  Difference difference;
};

// Not thread-safe. Pieces keep their address until they are removed.
class PieceIndex {
 public:
  // Fewer tokens in common are not worth a restore.
  static constexpr int32_t kMinPartTokens = 8;

  StoredPiece* find(const Hash128& key) const;
  // Says whether the piece has a state in RAM; of one that is new, it is not so.
  void note_in_ram(StoredPiece& piece, bool is_in_ram);
  // REQUIRES: no piece of that key is there
  StoredPiece& insert(StoredPiece piece);
  void remove(const Hash128& key);

  // The longest stored prefix of the prompt, of `max_tokens` at most; where several pieces
  // hold as much of it, one in RAM. Token ids are compared, not only their hashes.
  IndexMatch match(const StoreScope& scope, std::span<const Token> prompt, int32_t max_tokens);
  // The pieces that hold exactly these tokens, as far as they are there.
  std::vector<StoredPiece*> chain(const StoreScope& scope, std::span<const Token> tokens);
  bool has_children(const Hash128& key) const { return children_.contains(key); }
  // Unpinned siblings whose tokens are a true prefix of the piece's.
  std::vector<Hash128> superseded_by(const StoredPiece& piece) const;
  // The pieces that give back all that this one does: itself, and its longer siblings.
  std::vector<StoredPiece*> substitutes_of(StoredPiece& piece) const;

  // Pins the tokens' pieces, whether they are there yet or not; `unpin` undoes one `pin`.
  void pin(const StoreScope& scope, std::span<const Token> tokens);
  void unpin(const StoreScope& scope, std::span<const Token> tokens);
  bool is_pinned(const Hash128& key) const { return pins_.contains(key); }

  const std::unordered_map<Hash128, int32_t>& pins() const { return pins_; }
  const std::unordered_map<Hash128, std::unique_ptr<StoredPiece>>& pieces() const { return pieces_; }

 private:
  IndexMatch match_blocks(const StoreScope& scope, std::span<const Token> prompt, int32_t max_tokens);
  IndexMatch match_checkpoints(const StoreScope& scope, std::span<const Token> prompt,
                               int32_t max_tokens);

  std::unordered_map<Hash128, std::unique_ptr<StoredPiece>> pieces_;
  // By their tokens: those that begin alike stand side by side.
  struct TokenOrder {
    using is_transparent = void;
    bool operator()(const StoredPiece* a, const StoredPiece* b) const;
    bool operator()(const StoredPiece* a, std::span<const Token> b) const;
    bool operator()(std::span<const Token> a, const StoredPiece* b) const;
  };
  using Children = std::set<StoredPiece*, TokenOrder>;

  using ChildrenByParent = std::unordered_map<Hash128, Children>;

  // Adds those of the parent that share most with the rest of a prompt: some of them, where
  // many share as much.
  static void add_closest(const ChildrenByParent& all, const Hash128& parent,
                          std::span<const Token> rest, std::vector<StoredPiece*>& found);
  static void erase_child(ChildrenByParent& all, StoredPiece& piece);

  // The root's that shares most with a prompt, whether it is of use to that or not; if it can be,
  // one that goes on where they part.
  // REQUIRES: there is one
  StoredPiece& closest_checkpoint(const Hash128& root, std::span<const Token> prompt) const;

  // Checkpoints are found by their keys; here it is only seen which one a prompt came closest to.
  ChildrenByParent children_;
  ChildrenByParent children_in_ram_;  // blocks alone
  // Of each root: how many checkpoints end at a position.
  std::unordered_map<Hash128, std::map<int32_t, int32_t>> checkpoint_ends_;
  std::unordered_map<Hash128, int32_t> pins_;  // by the key of the piece
};

}  // namespace snapllm
