#include "store/kv_store.h"

#include <algorithm>
#include <map>
#include <utility>

namespace snapllm {
namespace {

// More waits for the writer at no time: what comes then is kept in RAM only.
constexpr uint64_t kMaxPendingWriteBytes = uint64_t{512} << 20;
// The share of the warm tier's bound that it always has.
constexpr uint64_t kLeastRamDivisor = 8;

}  // namespace

KvStore::KvStore(KvStoreOptions options, std::unique_ptr<FileEnv> env)
    : options_(std::move(options)), env_(std::move(env)), ram_bound_(options_.ram_bytes) {
  stats_.max_ram_bytes = ram_bound_;
  stats_.max_disk_bytes = has_disk() ? options_.disk_bytes : 0;
  if (has_disk()) io_.push([this] { find_unopened(); });
}

KvStore::~KvStore() = default;

void StoredPrefix::cut(int32_t count) {
  while (!parts.empty() && parts.back().range.begin >= count) parts.pop_back();
  if (!parts.empty()) {
    Part& last = parts.back();
    last.num_tokens = std::min(last.num_tokens, count - last.range.begin);
  }
  num_tokens = count;
  count_cold();
}

int32_t StoredPrefix::skip(int32_t count) {
  std::erase_if(parts, [&](const Part& part) { return part.range.begin + part.num_tokens <= count; });
  count_cold();
  return parts.front().range.begin;
}

void StoredPrefix::count_cold() {
  num_cold_tokens = 0;
  for (const Part& part : parts) num_cold_tokens += part.was_cold ? part.num_tokens : 0;
}

// Says at its end that what was planned is read, or given up.
struct KvStore::ReadingEnd {
  KvStore& store;
  const std::vector<PlannedPart>& plan;
  ~ReadingEnd() { store.end_reading(plan); }
};

StoredPrefix KvStore::match(const StoreScope& scope, std::span<const Token> prompt,
                            int32_t max_tokens, Reading reading) {
  for (;;) {
    StoredPrefix prefix;
    std::vector<PlannedPart> plan = plan_match(scope, prompt, max_tokens, reading, prefix);
    const ReadingEnd end{*this, plan};
    // A piece whose file is damaged is not known any more: another may hold as much.
    if (load_parts(plan, prefix).code() != StatusCode::kFileDamaged) return prefix;
  }
}

bool KvStore::is_cold(const StoreScope& scope, std::span<const Token> prompt,
                      int32_t max_tokens) {
  std::lock_guard lock(mutex_);
  const IndexMatch match = index_.match(scope, prompt, max_tokens);
  return std::any_of(match.parts.begin(), match.parts.end(),
                     [](const IndexMatch::Part& part) { return part.piece->state == nullptr; });
}

std::vector<KvStore::PlannedPart> KvStore::plan_match(const StoreScope& scope,
                                                      std::span<const Token> prompt,
                                                      int32_t max_tokens, Reading reading,
                                                      StoredPrefix& prefix) {
  std::vector<PlannedPart> plan;
  std::lock_guard lock(mutex_);
  const IndexMatch match = index_.match(scope, prompt, max_tokens);
  prefix.difference = match.difference;
  ++clock_;
  const bool is_cold = std::ranges::any_of(
      match.parts, [](const IndexMatch::Part& part) { return part.piece->state == nullptr; });
  const bool reads = reading == Reading::kAll ||
                     (reading == Reading::kFitting && is_cold && fits_in_ram(match));
  prefix.num_unread_tokens = match.num_tokens;
  for (const IndexMatch::Part& part : match.parts) {
    StoredPiece& piece = *part.piece;
    if (piece.state == nullptr && !reads) break;
    touch(piece);
    plan.push_back(plan_part(piece, part.num_tokens));
    if (plan.back().is_cold) reading_bytes_ += plan.back().state_bytes;
    prefix.num_unread_tokens -= part.num_tokens;
  }
  return plan;
}

void KvStore::end_reading(const std::vector<PlannedPart>& plan) {
  std::lock_guard lock(mutex_);
  for (const PlannedPart& part : plan) reading_bytes_ -= part.is_cold ? part.state_bytes : 0;
}

bool KvStore::fits_in_ram(const IndexMatch& match) const {
  uint64_t bytes = reading_bytes_ + staying_ram_bytes();
  for (const IndexMatch::Part& part : match.parts) {
    const bool is_counted = part.piece->state != nullptr && !can_leave_ram(*part.piece);
    if (!is_counted) bytes += part.piece->state_bytes;
  }
  return bytes <= ram_bound_;
}

uint64_t KvStore::staying_ram_bytes() const {
  uint64_t bytes = 0;
  for (const StoredPiece* piece : in_ram_) {
    if (!can_leave_ram(*piece)) bytes += piece->state_bytes;
  }
  return bytes;
}

Status KvStore::load_parts(std::vector<PlannedPart>& plan, StoredPrefix& prefix) {
  const std::vector<Status> loaded = load_cold(plan);
  for (size_t i = 0; i < plan.size(); ++i) {
    if (!loaded[i].ok()) return loaded[i];
    const PlannedPart& part = plan[i];
    prefix.parts.push_back({part.state, {part.id.begin, part.id.end}, part.num_tokens, part.is_cold});
    prefix.num_tokens = part.id.begin + part.num_tokens;
    if (part.is_cold) prefix.num_cold_tokens += part.num_tokens;
  }
  return {};
}

KvStore::PlannedPart KvStore::plan_part(const StoredPiece& piece, int32_t num_tokens) const {
  return {.id = piece.id,
          .fingerprint = piece.fingerprint,
          .state_bytes = piece.state_bytes,
          .file_bytes = piece.file_bytes,
          .path = piece.on_disk ? path_of(piece) : "",
          .state = piece.state,
          .num_tokens = num_tokens,
          .is_cold = piece.state == nullptr};
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
  for (const Status& status : load_cold(plan)) {
    if (!status.ok()) return status.code() == StatusCode::kFileDamaged ? lost : status;
  }
  std::vector<StatePtr> states;
  for (const PlannedPart& part : plan) states.push_back(part.state);
  return states;
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
  const auto before = tokens.first(static_cast<size_t>(range.begin));
  const Hash128 parent =
      before.empty() ? scope.root : piece_keys(scope.kind, scope.root, before).back();
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
  const Hash128 key = piece.id.key;
  StoredPiece& stored = index_.insert(std::move(piece));
  ++stats_.num_stored;
  ++clock_;
  touch(stored);
  set_state(stored, std::move(shared));
  for (const Hash128& shorter : index_.superseded_by(stored)) forget(*index_.find(shorter));
  if (has_disk()) {
    if (pending_write_bytes_ + stored.state_bytes <= kMaxPendingWriteBytes &&
        has_disk_room(stored)) {
      write_behind(stored);
    } else {
      ++stats_.num_dropped;
      trim_disk();  // no write will
    }
  }
  fit_in_ram(key);
}

Status KvStore::persist(const StoreScope& scope, std::span<const Token> tokens) {
  const size_t num_pieces = cut_into_pieces(scope.kind, static_cast<int32_t>(tokens.size())).size();
  const Status lost(StatusCode::kStorageFailed, "the KV of the context does not fit the store");
  uint64_t num_failures_before = 0;
  {
    std::lock_guard lock(mutex_);
    const auto pieces = index_.chain(scope, tokens);
    if (pieces.size() < num_pieces) return lost;
    if (!has_disk()) return {};
    num_failures_before = stats_.num_write_failures;
    ++clock_;
    for (StoredPiece* piece : pieces) {
      touch(*piece);
      if (piece->on_disk || piece->is_writing()) continue;
      if (!has_disk_room(*piece)) return lost;
      write_behind(*piece);
    }
  }
  io_.flush();
  io_.flush();  // of those that are written again, once there is room
  std::lock_guard lock(mutex_);
  const auto pieces = index_.chain(scope, tokens);
  const bool has_failed = stats_.num_write_failures > num_failures_before;
  const Status failure(last_write_failure_.code(),
                       "the workspace cannot be written: " + last_write_failure_.message());
  if (pieces.size() < num_pieces) return has_failed ? failure : lost;
  if (std::all_of(pieces.begin(), pieces.end(), [](auto* p) { return p->on_disk; })) return {};
  return has_failed ? failure : lost;  // evicted
}

void KvStore::pin(const StoreScope& scope, std::span<const Token> tokens) {
  std::lock_guard lock(mutex_);
  index_.pin(scope, tokens);
}

void KvStore::unpin(const StoreScope& scope, std::span<const Token> tokens) {
  std::lock_guard lock(mutex_);
  index_.unpin(scope, tokens);
}

Status KvStore::drop_from_ram(const StoreScope& scope, std::span<const Token> tokens,
                              std::span<const std::vector<Token>> kept) {
  if (Status status = persist(scope, tokens); !status.ok()) return status;
  if (!has_disk()) return {StatusCode::kStorageFailed, "there is no workspace to keep it in"};
  std::lock_guard lock(mutex_);
  std::set<const StoredPiece*> staying;
  for (const auto& other : kept) {
    for (StoredPiece* piece : index_.chain(scope, other)) {
      for (const StoredPiece* substitute : index_.substitutes_of(*piece)) staying.insert(substitute);
    }
  }
  for (StoredPiece* piece : index_.chain(scope, tokens)) {
    for (StoredPiece* substitute : index_.substitutes_of(*piece)) {
      if (substitute->on_disk && !staying.contains(substitute)) clear_state(*substitute);
    }
  }
  return {};
}

void KvStore::remove(const StoreScope& scope, std::span<const Token> tokens) {
  std::lock_guard lock(mutex_);
  auto pieces = index_.chain(scope, tokens);
  // From the end: what others build on is in the middle of their chains.
  for (; !pieces.empty(); pieces.pop_back()) {
    const Hash128& key = pieces.back()->id.key;
    if (index_.is_pinned(key) || index_.has_children(key)) break;
    forget(*pieces.back());
  }
}

PrefixUsage KvStore::usage(const StoreScope& scope, std::span<const Token> tokens) {
  const ScopedTokens prefix{scope, tokens};
  return usage({&prefix, 1});
}

PrefixUsage KvStore::usage(std::span<const ScopedTokens> prefixes) {
  std::lock_guard lock(mutex_);
  std::map<StoredPiece*, Tier> tiers;
  for (const auto& [scope, tokens, tier] : prefixes) {
    for (StoredPiece* piece : index_.chain(scope, tokens)) {
      tiers[piece] = std::max(tiers[piece], tier);
    }
  }
  PrefixUsage usage;
  std::set<const StoredPiece*> counted_in_ram;
  for (const auto& [piece, tier] : tiers) {
    const int32_t num_tokens = piece->id.end - piece->id.begin;
    usage.num_stored_tokens += num_tokens;
    if (tier >= Tier::kHot) usage.state_bytes += piece->state_bytes;
    // A question is answered from whatever holds the piece's tokens, so that counts.
    const auto substitutes = index_.substitutes_of(*piece);
    const auto in_ram = std::find_if(substitutes.begin(), substitutes.end(),
                                     [](const auto* other) { return other->state != nullptr; });
    if (tier >= Tier::kWarm && in_ram != substitutes.end()) {
      usage.num_ram_tokens += num_tokens;
      if (counted_in_ram.insert(*in_ram).second) usage.ram_bytes += (*in_ram)->state_bytes;
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
  return std::max(staying_ram_bytes(), std::min(stats_.ram_bytes, options_.ram_bytes / kLeastRamDivisor));
}

void KvStore::bound_ram(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  ram_bound_ = std::clamp(bytes, options_.ram_bytes / kLeastRamDivisor, options_.ram_bytes);
  stats_.max_ram_bytes = ram_bound_;
  trim_ram();
}

void KvStore::clear_ram() {
  std::lock_guard lock(mutex_);
  const std::vector<StoredPiece*> pieces(in_ram_.begin(), in_ram_.end());
  for (StoredPiece* piece : pieces) {
    if (piece->on_disk) {
      clear_state(*piece);
    } else if (!piece->is_writing()) {
      forget(*piece);
    }
  }
}

KvStoreStats KvStore::stats() const {
  std::lock_guard lock(mutex_);
  KvStoreStats stats = stats_;
  stats.num_pieces = index_.pieces().size();
  return stats;
}

}  // namespace snapllm
