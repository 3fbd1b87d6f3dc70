// The KV store: pieces of KV in RAM (warm) and on disk (cold), of all models.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "snapllm/prefix.h"
#include "snapllm/stats.h"
#include "snapllm/status.h"
#include "store/file_env.h"
#include "store/io_thread.h"
#include "store/piece_index.h"
#include "store/unopened_files.h"

namespace snapllm {

struct PieceFile;

struct KvStoreOptions {
  uint64_t ram_bytes = 0;   // bound of the warm tier
  uint64_t disk_bytes = 0;  // bound of the cold tier
  std::string folder;       // of the cold tier; empty = there is none
};

// What a match takes of what is on disk only. Reading takes time.
enum class Reading {
  kNone,
  kFitting,  // all, if RAM holds it beside what cannot leave RAM; else nothing
  kAll,
};

// The longest stored prefix of a prompt, ready to be restored in order. Keeps its
// states alive whatever the tiers do.
struct StoredPrefix {
  struct Part {
    StatePtr state;
    TokenRange range;        // what the state holds
    int32_t num_tokens = 0;  // of them to be used, from range.begin on
    bool was_cold = false;
  };
  std::vector<Part> parts;
  int32_t num_tokens = 0;
  int32_t num_cold_tokens = 0;
  int32_t num_unread_tokens = 0;  // that follow these, and were left on disk
  Difference difference;  // of the prompt and what is stored

  // Leaves only the first `count` tokens. REQUIRES: blocks; count <= num_tokens
  void cut(int32_t count);
  // Leaves out the parts that the first `count` tokens hold, and returns where the rest begins.
  // REQUIRES: blocks; count < num_tokens
  int32_t skip(int32_t count);

 private:
  void count_cold();
};

// Where the pieces of a token sequence are.
struct PrefixUsage {
  int32_t num_stored_tokens = 0;  // an unbroken prefix of them is in some tier
  int32_t num_ram_tokens = 0;     // whichever pieces give them back
  int32_t num_disk_tokens = 0;
  uint64_t state_bytes = 0;  // wherever they are, of what may be hot
  uint64_t ram_bytes = 0;
  uint64_t disk_bytes = 0;
};

struct ScopedTokens {
  StoreScope scope;
  std::span<const Token> tokens;
  Tier tier = Tier::kHot;  // what it has in warmer ones does not count
};

// Thread-safe. Writes behind: put() returns at once and a thread of the store's own
// writes the files; persist() waits for them. A file that cannot be read is a miss and counts;
// one that is damaged is removed as well.
class KvStore {
 public:
  KvStore(KvStoreOptions options, std::unique_ptr<FileEnv> env);
  ~KvStore();  // writes what is still to be written

  // Finds the files of a model's earlier runs, after the writes that are queued. Called again
  // for the same model, it looks only for those that could not be read. What is too much for the
  // disk's bound goes with the next write: by then what was kept on purpose is pinned. The files of
  // models that were never opened go first.
  void open(const Hash128& fingerprint);

  // The longest stored prefix, up to what is to be left on disk.
  StoredPrefix match(const StoreScope& scope, std::span<const Token> prompt, int32_t max_tokens,
                     Reading reading);
  // Whether a match that loads would read from disk.
  bool is_cold(const StoreScope& scope, std::span<const Token> prompt, int32_t max_tokens);
  // The ranges of the tokens' pieces that no tier holds.
  std::vector<TokenRange> missing(const StoreScope& scope, std::span<const Token> tokens);
  // Keeps the state of `range`, unless neither tier has room for it; `tokens` are all up to
  // range.end.
  void put(const StoreScope& scope, std::span<const Token> tokens, TokenRange range,
           StateBytes state);

  // Waits until all pieces of the tokens are on disk. Fails when one cannot be written or is not
  // there. Without a disk tier: checks that they are in RAM.
  Status persist(const StoreScope& scope, std::span<const Token> tokens);
  // Exempts the pieces from eviction, also those that are put later, until as many calls of
  // unpin. They may still leave RAM for the disk, and may be more than the disk's bound.
  void pin(const StoreScope& scope, std::span<const Token> tokens);
  void unpin(const StoreScope& scope, std::span<const Token> tokens);
  // The states of the tokens' pieces (`cut_into_pieces`), in order; reads from disk what
  // is not in RAM, and promotes it. Fails when a piece is not stored or cannot be read.
  Result<std::vector<StatePtr>> states(const StoreScope& scope, std::span<const Token> tokens);
  // Demotes to cold, but for what is also part of one of `kept`; fails when something is
  // not on disk, and then changes nothing.
  Status drop_from_ram(const StoreScope& scope, std::span<const Token> tokens,
                       std::span<const std::vector<Token>> kept = {});
  // Removes the pieces that nobody pins and nothing builds on.
  void remove(const StoreScope& scope, std::span<const Token> tokens);
  // Removes files that nobody pins, as many as have so many bytes, whatever the bound: on a full
  // disk for what a context has beside its pieces. Waits until they are gone.
  void make_disk_room(uint64_t bytes);
  PrefixUsage usage(const StoreScope& scope, std::span<const Token> tokens);
  // Of all of them together; a piece that several have counts once, for the warmest.
  PrefixUsage usage(std::span<const ScopedTokens> prefixes);

  bool has_disk() const { return !options_.folder.empty(); }
  uint64_t ram_bytes() const;
  // What would stay in RAM under the lowest bound.
  uint64_t least_ram_bytes() const;
  // Lowers the bound of the warm tier, or raises it up to the options' again; an eighth of
  // that always stays, since everything is stored by way of RAM.
  void bound_ram(uint64_t bytes);
  // Empties the warm tier but for what is still being written; for the end, when nothing is.
  void clear_ram();
  KvStoreStats stats() const;
  // Waits for all writes, and for the removals that the end of a write leads to.
  void flush() {
    io_.flush();
    io_.flush();
  }

  // Held by whoever ends an answer until its KV is here; held for a moment, it is the wait for the
  // KV of all answers that have ended.
  std::unique_lock<std::mutex> lock_handover() { return std::unique_lock(handover_mutex_); }

 private:
  // A piece to be taken from its tier without the lock.
  struct PlannedPart {
    PieceId id;
    Hash128 fingerprint;
    uint64_t state_bytes = 0;
    uint64_t file_bytes = 0;
    std::string path;
    StatePtr state;
    int32_t num_tokens = 0;
    bool is_cold = false;
  };
  std::string folder_of(const Hash128& fingerprint) const;
  std::string path_of(const StoredPiece& piece) const;
  // REQUIRES: mutex_ held
  PlannedPart plan_part(const StoredPiece& piece, int32_t num_tokens) const;
  // Which pieces to take of a prompt, in order, and the token that is cached after them. The
  // bytes to be read are added to reading_bytes_.
  std::vector<PlannedPart> plan_match(const StoreScope& scope, std::span<const Token> prompt,
                                      int32_t max_tokens, Reading reading, StoredPrefix& prefix);
  void end_reading(const std::vector<PlannedPart>& plan);
  struct ReadingEnd;
  // Whether RAM holds all of it, beside what cannot leave. REQUIRES: mutex_ held
  bool fits_in_ram(const IndexMatch& match) const;
  uint64_t staying_ram_bytes() const;  // REQUIRES: mutex_ held
  // Reads what is on disk only and adds all of it to the prefix, up to the first failure of
  // load_part.
  Status load_parts(std::vector<PlannedPart>& plan, StoredPrefix& prefix);
  // load_part for all that are on disk only, several at a time where that is much to read.
  std::vector<Status> load_cold(std::vector<PlannedPart>& plan);
  // Reads the part's state without the lock. kFileDamaged: the piece is forgotten;
  // kStorageFailed: it cannot be read, now at least.
  Status load_part(PlannedPart& part);
  // Whether the folder was listed and all its files could be read.
  bool is_open(const Hash128& fingerprint) const;
  // On the thread that writes and removes: what it finds is what is there. Without the lock
  // while it reads.
  void find_files(const Hash128& fingerprint);
  // On the same thread: what there is of models that nobody has opened.
  void find_unopened();
  // REQUIRES, all below: mutex_ held
  void adopt(const Hash128& fingerprint, PieceFile file);
  void touch(StoredPiece& piece);
  void set_state(StoredPiece& piece, StatePtr state);
  void clear_state(StoredPiece& piece);
  void forget(StoredPiece& piece);
  // Removes the file, also one that is being written: behind that.
  void drop_file(StoredPiece& piece);
  // Behind what is queued, and not where the piece has a file again by then.
  void remove_file(const Hash128& key, std::string path);
  // Whether its file would not be the first to be evicted for want of room.
  bool has_disk_room(const StoredPiece& piece) const;
  void write_behind(StoredPiece& piece);
  struct Write {
    PieceId id;
    Hash128 fingerprint;
    uint64_t number;
    StatePtr state;
    std::string path;
  };
  // On a full disk what is not pinned makes way for what is, and it is tried again.
  void run_write(const Write& write, bool may_make_room);
  void note_write_failure(const Status& status);
  // Means nothing for a piece that was forgotten since, even if it was put again: then its
  // present write has another number.
  void finish_write(const Hash128& key, uint64_t write, const Status& status, uint64_t file_bytes);
  // What is being written, or held for a request, stays in RAM: its bytes are in use anyway.
  bool can_leave_ram(const StoredPiece& piece) const;
  void trim_ram();
  // Trims; forgets the piece, pinned or not, if that does not make room for it and it is
  // neither on disk nor on its way there.
  void fit_in_ram(const Hash128& key);
  // What is in RAM stays there.
  void trim_disk();
  // Removes files that are not pinned, of so many bytes at least, if there are.
  void evict_from_disk(uint64_t num_bytes);
  // Of the files that are pinned, those of models that nobody has opened among them.
  uint64_t staying_disk_bytes() const;

  const KvStoreOptions options_;
  const std::unique_ptr<FileEnv> env_;

  std::mutex handover_mutex_;
  mutable std::mutex mutex_;
  // Guarded by mutex_:
  PieceIndex index_;
  // Of each model whose folder was listed: the names of the files that could not be read.
  std::map<Hash128, std::set<std::string>> unread_;
  UnopenedFiles unopened_;
  std::unordered_set<StoredPiece*> in_ram_;  // those with a state
  uint64_t clock_ = 0;
  uint64_t ram_bound_;
  uint64_t last_write_ = 0;  // the number of the latest
  uint64_t pending_write_bytes_ = 0;
  uint64_t reading_bytes_ = 0;  // on their way from disk
  Status last_write_failure_;
  KvStoreStats stats_;

  IoThread io_;  // last: ends before what its tasks use
};

}  // namespace snapllm
