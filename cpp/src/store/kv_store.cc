#include "store/kv_store.h"

#include <algorithm>
#include <map>
#include <utility>

#include "store/eviction.h"
#include "store/piece_file.h"

namespace snapllm {
namespace {

// More waits for the writer at no time: what comes then is kept in RAM only.
constexpr uint64_t kMaxPendingWriteBytes = uint64_t{512} << 20;
// A tier that is full is emptied by this share more than needed, so that the order of
// all pieces is not looked at for each new one.
constexpr uint64_t kHeadroomDivisor = 16;
// The share of the warm tier's bound that it always has.
constexpr uint64_t kLeastRamDivisor = 8;

// What is being written stays: its bytes are in use anyway.
bool can_leave_ram(const StoredPiece& piece) {
  return piece.on_disk || (!piece.is_writing && piece.num_pins == 0);
}

}  // namespace

struct KvStore::PlannedPart {
  PieceId id;
  Hash128 fingerprint;
  uint64_t file_bytes = 0;
  std::string path;
  StatePtr state;
  int32_t num_tokens = 0;
  bool is_cold = false;
};

KvStore::KvStore(KvStoreOptions options, std::unique_ptr<FileEnv> env)
    : options_(std::move(options)), env_(std::move(env)), ram_bound_(options_.ram_bytes) {
  stats_.max_ram_bytes = ram_bound_;
  stats_.max_disk_bytes = has_disk() ? options_.disk_bytes : 0;
}

KvStore::~KvStore() = default;

std::string KvStore::folder_of(const Hash128& fingerprint) const {
  return options_.folder + "/" + fingerprint.hex();
}

std::string KvStore::path_of(const StoredPiece& piece) const {
  return folder_of(piece.fingerprint) + "/" + piece_file_name(piece.id.key);
}

void KvStore::open(const Hash128& fingerprint) {
  if (!has_disk()) return;
  std::lock_guard lock(mutex_);
  if (!opened_.insert(fingerprint).second) return;
  const std::string folder = folder_of(fingerprint);
  if (!env_->make_folder(folder).ok()) {
    ++stats_.num_write_failures;
    return;
  }
  auto files = env_->list(folder);
  if (!files.ok()) return;
  std::sort(files.value().begin(), files.value().end(),
            [](const auto& a, const auto& b) { return a.modified_ns < b.modified_ns; });
  adopt_files(fingerprint, files.value());
  trim_disk();
}

void KvStore::adopt_files(const Hash128& fingerprint, const std::vector<FileInfo>& files) {
  for (const FileInfo& file : files) {
    const std::string path = folder_of(fingerprint) + "/" + file.name;
    auto header = read_piece_header(*env_, path, file.bytes, fingerprint);
    if (!header.ok() || piece_file_name(header.value().piece.key) != file.name) {
      // Also the temporary file of a write that a crash ended.
      if (!file.name.ends_with(".tmp")) ++stats_.num_damaged;
      (void)env_->remove(path);
      continue;
    }
    if (index_.find(header.value().piece.key) != nullptr) continue;
    StoredPiece piece;
    piece.id = std::move(header.value().piece);
    piece.fingerprint = fingerprint;
    piece.state_bytes = header.value().state_bytes;
    piece.file_bytes = file.bytes;
    piece.on_disk = true;
    piece.last_used = ++clock_;
    index_.insert(std::move(piece));
    stats_.disk_bytes += file.bytes;
  }
}

void StoredPrefix::cut(int32_t count) {
  while (!parts.empty() && parts.back().range.begin >= count) parts.pop_back();
  if (!parts.empty()) {
    Part& last = parts.back();
    last.num_tokens = std::min(last.num_tokens, count - last.range.begin);
  }
  num_tokens = count;
  num_cold_tokens = 0;
  for (const Part& part : parts) num_cold_tokens += part.was_cold ? part.num_tokens : 0;
}

StoredPrefix KvStore::match(const StoreScope& scope, std::span<const Token> prompt,
                            int32_t max_tokens, bool load_cold) {
  StoredPrefix prefix;
  std::vector<PlannedPart> plan;
  {
    std::lock_guard lock(mutex_);
    const IndexMatch match = index_.match(scope, prompt, max_tokens);
    prefix.cached_token = match.cached_token;
    ++clock_;
    for (const IndexMatch::Part& part : match.parts) {
      StoredPiece& piece = *part.piece;
      if (piece.state == nullptr && !load_cold) break;
      touch(piece);
      plan.push_back(plan_part(piece, part.num_tokens));
    }
  }
  for (PlannedPart& part : plan) {
    if (part.is_cold && !load_part(part)) break;
    prefix.parts.push_back({part.state, {part.id.begin, part.id.end}, part.num_tokens, part.is_cold});
    prefix.num_tokens = part.id.begin + part.num_tokens;
    if (part.is_cold) prefix.num_cold_tokens += part.num_tokens;
  }
  return prefix;
}

KvStore::PlannedPart KvStore::plan_part(const StoredPiece& piece, int32_t num_tokens) const {
  return {piece.id,    piece.fingerprint, piece.file_bytes,         piece.on_disk ? path_of(piece) : "",
          piece.state, num_tokens,        piece.state == nullptr};
}

bool KvStore::load_to_ram(const StoreScope& scope, std::span<const Token> tokens) {
  return states(scope, tokens).ok();
}

Result<std::vector<StatePtr>> KvStore::states(const StoreScope& scope,
                                              std::span<const Token> tokens) {
  std::vector<PlannedPart> plan;
  {
    std::lock_guard lock(mutex_);
    ++clock_;
    for (StoredPiece* piece : index_.chain(scope, tokens)) {
      touch(*piece);
      plan.push_back(plan_part(*piece, piece->id.end - piece->id.begin));
    }
  }
  const auto num_pieces = cut_into_pieces(scope.kind, static_cast<int32_t>(tokens.size())).size();
  const Status lost(StatusCode::kStorageFailed, "the context's KV is no longer stored");
  if (plan.size() != num_pieces) return lost;
  std::vector<StatePtr> states;
  for (PlannedPart& part : plan) {
    if (part.is_cold && !load_part(part)) return lost;
    states.push_back(part.state);
  }
  return states;
}

bool KvStore::load_part(PlannedPart& part) {
  auto state = read_piece_state(*env_, part.path, part.file_bytes, part.fingerprint, part.id);
  std::lock_guard lock(mutex_);
  StoredPiece* piece = index_.find(part.id.key);
  if (!state.ok()) {
    // Unless it was evicted between the plan and the read.
    if (piece != nullptr && piece->on_disk) {
      ++stats_.num_damaged;
      forget(*piece);
    }
    return false;
  }
  part.state = std::move(state).value();
  ++stats_.num_loaded;
  if (piece != nullptr && piece->state == nullptr) {
    set_state(*piece, part.state);
    trim_ram();
  }
  return true;
}

std::vector<TokenRange> KvStore::missing(const StoreScope& scope, std::span<const Token> tokens) {
  std::lock_guard lock(mutex_);
  auto ranges = cut_into_pieces(scope.kind, static_cast<int32_t>(tokens.size()));
  const auto present = index_.chain(scope, tokens);
  ++clock_;
  for (StoredPiece* piece : present) touch(*piece);
  ranges.erase(ranges.begin(), ranges.begin() + static_cast<ptrdiff_t>(present.size()));
  return ranges;
}

void KvStore::put(const StoreScope& scope, std::span<const Token> tokens, TokenRange range,
                  StateBytes state) {
  // Keys of the blocks before it, without the lock.
  Hash128 parent = scope.root;
  if (scope.kind == KvKind::kBlocks) {
    for (int32_t begin = 0; begin < range.begin; begin += kBlockTokens) {
      parent = hash128(&tokens[static_cast<size_t>(begin)], kBlockTokens * sizeof(Token), parent);
    }
  }
  const auto own = tokens.subspan(static_cast<size_t>(range.begin),
                                  static_cast<size_t>(range.end - range.begin));
  StoredPiece piece;
  piece.id = make_piece(parent, scope.kind, range.begin, own);
  piece.fingerprint = scope.fingerprint;
  piece.state_bytes = state.size();
  auto shared = std::make_shared<const StateBytes>(std::move(state));

  std::lock_guard lock(mutex_);
  if (index_.find(piece.id.key) != nullptr) return;
  if (piece.state_bytes > options_.ram_bytes) {
    ++stats_.num_dropped;
    return;
  }
  StoredPiece& stored = index_.insert(std::move(piece));
  ++stats_.num_stored;
  ++clock_;
  touch(stored);
  set_state(stored, std::move(shared));
  for (const Hash128& key : index_.superseded_by(stored)) forget(*index_.find(key));
  if (has_disk()) {
    if (pending_write_bytes_ + stored.state_bytes <= kMaxPendingWriteBytes) {
      write_behind(stored);
    } else {
      ++stats_.num_dropped;
    }
  }
  trim_ram();
}

Status KvStore::persist(const StoreScope& scope, std::span<const Token> tokens) {
  const size_t num_pieces = cut_into_pieces(scope.kind, static_cast<int32_t>(tokens.size())).size();
  const Status lost(StatusCode::kStorageFailed, "the KV of the context does not fit the store");
  {
    std::lock_guard lock(mutex_);
    const auto pieces = index_.chain(scope, tokens);
    if (pieces.size() < num_pieces) return lost;
    if (!has_disk()) return {};
    for (StoredPiece* piece : pieces) {
      if (!piece->on_disk && !piece->is_writing) write_behind(*piece);
    }
  }
  io_.flush();
  std::lock_guard lock(mutex_);
  const auto pieces = index_.chain(scope, tokens);
  if (pieces.size() < num_pieces) return lost;
  const bool all_there = std::all_of(pieces.begin(), pieces.end(), [](auto* p) { return p->on_disk; });
  if (!all_there) {
    return {StatusCode::kStorageFailed, "the workspace cannot be written: see the server's log"};
  }
  return {};
}

void KvStore::pin(const StoreScope& scope, std::span<const Token> tokens) {
  std::lock_guard lock(mutex_);
  for (StoredPiece* piece : index_.chain(scope, tokens)) ++piece->num_pins;
}

void KvStore::unpin(const StoreScope& scope, std::span<const Token> tokens) {
  std::lock_guard lock(mutex_);
  for (StoredPiece* piece : index_.chain(scope, tokens)) {
    if (piece->num_pins > 0) --piece->num_pins;
  }
}

Status KvStore::drop_from_ram(const StoreScope& scope, std::span<const Token> tokens,
                              std::span<const std::vector<Token>> kept) {
  if (Status status = persist(scope, tokens); !status.ok()) return status;
  if (!has_disk()) return {StatusCode::kStorageFailed, "there is no workspace to keep it in"};
  std::lock_guard lock(mutex_);
  std::set<const StoredPiece*> staying;
  for (const auto& other : kept) {
    for (const StoredPiece* piece : index_.chain(scope, other)) staying.insert(piece);
  }
  for (StoredPiece* piece : index_.chain(scope, tokens)) {
    if (piece->on_disk && !staying.contains(piece)) clear_state(*piece);
  }
  return {};
}

void KvStore::remove(const StoreScope& scope, std::span<const Token> tokens) {
  std::lock_guard lock(mutex_);
  auto pieces = index_.chain(scope, tokens);
  // From the end: what others build on is in the middle of their chains.
  for (; !pieces.empty() && pieces.back()->num_pins == 0; pieces.pop_back()) {
    if (index_.has_children(pieces.back()->id.key)) break;
    forget(*pieces.back());
  }
}

PrefixUsage KvStore::usage(const StoreScope& scope, std::span<const Token> tokens) {
  const ScopedTokens prefix{scope, tokens};
  return usage({&prefix, 1});
}

PrefixUsage KvStore::usage(std::span<const ScopedTokens> prefixes) {
  std::lock_guard lock(mutex_);
  std::map<const StoredPiece*, Tier> tiers;
  for (const auto& [scope, tokens, tier] : prefixes) {
    for (const StoredPiece* piece : index_.chain(scope, tokens)) {
      tiers[piece] = std::max(tiers[piece], tier);
    }
  }
  PrefixUsage usage;
  for (const auto& [piece, tier] : tiers) {
    const int32_t num_tokens = piece->id.end - piece->id.begin;
    usage.num_stored_tokens += num_tokens;
    if (tier >= Tier::kHot) usage.state_bytes += piece->state_bytes;
    if (tier >= Tier::kWarm && piece->state != nullptr) {
      usage.num_ram_tokens += num_tokens;
      usage.ram_bytes += piece->state_bytes;
    }
    if (piece->on_disk) {
      usage.num_disk_tokens += num_tokens;
      usage.disk_bytes += piece->file_bytes;
    }
  }
  return usage;
}

uint64_t KvStore::ram_bytes() const {
  std::lock_guard lock(mutex_);
  return stats_.ram_bytes;
}

uint64_t KvStore::least_ram_bytes() const {
  std::lock_guard lock(mutex_);
  uint64_t staying = 0;
  for (const auto& [key, piece] : index_.pieces()) {
    if (piece->state != nullptr && !can_leave_ram(*piece)) staying += piece->state_bytes;
  }
  return std::max(staying, std::min(stats_.ram_bytes, options_.ram_bytes / kLeastRamDivisor));
}

void KvStore::bound_ram(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  ram_bound_ = std::clamp(bytes, options_.ram_bytes / kLeastRamDivisor, options_.ram_bytes);
  stats_.max_ram_bytes = ram_bound_;
  trim_ram();
}

KvStoreStats KvStore::stats() const {
  std::lock_guard lock(mutex_);
  KvStoreStats stats = stats_;
  stats.num_pieces = index_.pieces().size();
  return stats;
}

void KvStore::touch(StoredPiece& piece) {
  piece.last_used = clock_;
  if (piece.on_disk) io_.push([this, path = path_of(piece)] { env_->touch(path); });
}

void KvStore::set_state(StoredPiece& piece, StatePtr state) {
  piece.state = std::move(state);
  stats_.ram_bytes += piece.state_bytes;
}

void KvStore::clear_state(StoredPiece& piece) {
  if (piece.state == nullptr) return;
  piece.state.reset();
  stats_.ram_bytes -= piece.state_bytes;
}

void KvStore::forget(StoredPiece& piece) {
  clear_state(piece);
  if (piece.on_disk) stats_.disk_bytes -= piece.file_bytes;
  // Also where a write is under way: the removal is queued behind it.
  if (piece.on_disk || piece.is_writing) {
    io_.push([this, path = path_of(piece)] { (void)env_->remove(path); });
  }
  index_.remove(piece.id.key);
}

void KvStore::write_behind(StoredPiece& piece) {
  piece.is_writing = true;
  pending_write_bytes_ += piece.state_bytes;
  io_.push([this, id = piece.id, state = piece.state, fingerprint = piece.fingerprint,
            path = path_of(piece)] {
    Status status = write_piece_file(*env_, path, fingerprint, id, *state);
    // Somebody may have removed the folder.
    if (!status.ok() && env_->make_folder(folder_of(fingerprint)).ok()) {
      status = write_piece_file(*env_, path, fingerprint, id, *state);
    }
    std::lock_guard lock(mutex_);
    pending_write_bytes_ -= state->size();
    finish_write(id.key, status, piece_file_bytes(id, state->size()));
  });
}

void KvStore::finish_write(const Hash128& key, const Status& status, uint64_t file_bytes) {
  if (!status.ok()) ++stats_.num_write_failures;
  StoredPiece* piece = index_.find(key);
  // It may be gone, or gone and put again: then that one's own write comes later.
  if (piece == nullptr || !piece->is_writing) return;
  piece->is_writing = false;
  if (!status.ok()) return;
  ++stats_.num_written;
  piece->on_disk = true;
  piece->file_bytes = file_bytes;
  stats_.disk_bytes += file_bytes;
  trim_disk();
  trim_ram();
}

void KvStore::trim_ram() {
  if (stats_.ram_bytes <= ram_bound_) return;
  std::vector<Hash128> keys;
  std::vector<EvictionCandidate> candidates;
  for (const auto& [key, piece] : index_.pieces()) {
    if (piece->state == nullptr || !can_leave_ram(*piece)) continue;
    keys.push_back(key);
    candidates.push_back({piece->state_bytes, piece->last_used, piece->id.end});
  }
  const uint64_t excess = stats_.ram_bytes - ram_bound_ + ram_bound_ / kHeadroomDivisor;
  for (const size_t i : pick_victims(candidates, excess)) {
    StoredPiece& piece = *index_.find(keys[i]);
    ++stats_.num_ram_evictions;
    if (piece.on_disk) {
      clear_state(piece);
    } else {
      forget(piece);
    }
  }
}

void KvStore::trim_disk() {
  if (stats_.disk_bytes <= options_.disk_bytes) return;
  std::vector<Hash128> keys;
  std::vector<EvictionCandidate> candidates;
  for (const auto& [key, piece] : index_.pieces()) {
    if (!piece->on_disk || piece->num_pins > 0) continue;
    keys.push_back(key);
    candidates.push_back({piece->file_bytes, piece->last_used, piece->id.end});
  }
  const uint64_t excess =
      stats_.disk_bytes - options_.disk_bytes + options_.disk_bytes / kHeadroomDivisor;
  for (const size_t i : pick_victims(candidates, excess)) {
    ++stats_.num_disk_evictions;
    forget(*index_.find(keys[i]));
  }
}

}  // namespace snapllm
