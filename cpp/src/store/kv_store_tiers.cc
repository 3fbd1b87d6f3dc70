// Which piece is in which tier: states in RAM, files, and what leaves a tier that is full.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <optional>
#include <system_error>
#include <utility>

#include "base/machine.h"
#include "store/eviction.h"
#include "store/kv_store.h"
#include "store/piece_file.h"

namespace snapllm {
namespace {

// Of the file that says what a context is, and then some.
constexpr uint64_t kRecordBytes = 64 << 10;

// A tier that is full is emptied by this share more than needed, so that the order of
// all pieces is not looked at for each new one.
constexpr uint64_t kHeadroomDivisor = 16;

// A request that waits looks for its prefix at each step.
constexpr std::chrono::seconds kBetweenNotes{1};

// Below, a thread more would cost as much as it saves.
constexpr uint64_t kBytesPerReader = uint64_t{4} << 20;
constexpr uint64_t kMaxReaders = 4;

// What was read of a model's folder.
struct FolderContents {
  std::vector<PieceFile> pieces;  // the least recently used first
  std::vector<FileInfo> unread;   // files that cannot be read
  uint64_t num_damaged = 0;       // and removed
};

FolderContents read_files(FileEnv& env, const std::string& folder, const Hash128& fingerprint,
                          std::vector<FileInfo> files) {
  std::ranges::sort(files, {}, &FileInfo::modified_ns);
  FolderContents contents;
  for (const FileInfo& file : files) {
    const std::string path = folder + "/" + file.name;
    if (file.name.ends_with(".tmp")) {  // of a write that a crash ended
      (void)env.remove(path);
      continue;
    }
    auto header = read_piece_header(env, path, file.bytes, fingerprint);
    if (header.ok() && piece_file_name(header.value().piece.key) == file.name) {
      contents.pieces.push_back(std::move(header).value());
    } else if (!header.ok() && header.status().code() != StatusCode::kFileDamaged) {
      contents.unread.push_back(file);
    } else {
      ++contents.num_damaged;
      (void)env.remove(path);
    }
  }
  return contents;
}

}  // namespace

std::string KvStore::folder_of(const Hash128& fingerprint) const {
  return options_.folder + "/" + fingerprint.hex();
}

std::string KvStore::path_of(const StoredPiece& piece) const {
  return folder_of(piece.fingerprint) + "/" + piece_file_name(piece.id.key);
}

void KvStore::open(const Hash128& fingerprint) {
  if (!has_disk() || is_open(fingerprint)) return;
  io_.push([this, fingerprint] { find_files(fingerprint); });
  io_.flush();
}

bool KvStore::is_open(const Hash128& fingerprint) const {
  std::lock_guard lock(mutex_);
  const auto unread = unread_.find(fingerprint);
  return unread != unread_.end() && unread->second.empty();
}

void KvStore::find_files(const Hash128& fingerprint) {
  std::optional<std::set<std::string>> wanted;  // all where there is none
  {
    std::lock_guard lock(mutex_);
    if (const auto unread = unread_.find(fingerprint); unread != unread_.end()) {
      wanted = unread->second;
    }
  }
  const std::string folder = folder_of(fingerprint);
  const Status made = env_->make_folder(folder);
  auto files = made.ok() ? env_->list(folder) : Result<std::vector<FileInfo>>(made);
  FolderContents found;
  if (files.ok()) {
    if (wanted) std::erase_if(files.value(), [&](const auto& f) { return !wanted->contains(f.name); });
    found = read_files(*env_, folder, fingerprint, std::move(files).value());
  }
  std::lock_guard lock(mutex_);
  if (!made.ok()) return note_write_failure(made);
  stats_.num_damaged += found.num_damaged;
  stats_.num_read_failures += files.ok() ? found.unread.size() : 1;
  for (PieceFile& file : found.pieces) adopt(fingerprint, std::move(file));
  if (!files.ok()) return;
  stats_.disk_bytes -= unopened_.take(fingerprint);
  stats_.disk_bytes += unopened_.add(fingerprint, found.unread);  // they go on taking room
  std::set<std::string>& unread = unread_[fingerprint];
  unread.clear();
  for (const FileInfo& file : found.unread) unread.insert(file.name);
}

void KvStore::find_unopened() {
  const auto names = env_->folders(options_.folder);
  if (!names.ok()) return;  // there is none yet
  for (const std::string& name : names.value()) {
    const auto fingerprint = hash128_of_hex(name);
    if (!fingerprint || fingerprint->hex() != name) continue;
    const auto files = env_->list(folder_of(*fingerprint));
    if (!files.ok()) continue;
    std::lock_guard lock(mutex_);
    stats_.disk_bytes += unopened_.add(*fingerprint, files.value());
  }
}

void KvStore::adopt(const Hash128& fingerprint, PieceFile file) {
  StoredPiece* piece = index_.find(file.piece.key);
  if (piece == nullptr) {
    StoredPiece found;
    found.id = std::move(file.piece);
    found.fingerprint = fingerprint;
    found.state_bytes = file.state_bytes;
    found.last_used = ++clock_;
    piece = &index_.insert(std::move(found));
  }
  if (piece->on_disk || piece->is_writing()) return;
  piece->on_disk = true;
  piece->file_bytes = piece_file_bytes(piece->id, file.state_bytes);
  stats_.disk_bytes += piece->file_bytes;
}

std::vector<Status> KvStore::load_cold(std::vector<PlannedPart>& plan) {
  uint64_t bytes = 0;
  for (const PlannedPart& part : plan) bytes += part.is_cold ? part.file_bytes : 0;
  std::vector<Status> statuses(plan.size());
  std::atomic<size_t> next = 0;
  const auto read = [&] {
    for (size_t i = next++; i < plan.size(); i = next++) {
      if (plan[i].is_cold) statuses[i] = load_part(plan[i]);
    }
  };
  const uint64_t num_threads = std::min<uint64_t>(
      {bytes / kBytesPerReader, kMaxReaders, static_cast<uint64_t>(available_cpus())});
  std::vector<std::future<void>> others;
  try {
    for (uint64_t i = 1; i < num_threads; ++i) others.push_back(std::async(std::launch::async, read));
  } catch (const std::system_error&) {  // no more threads: those that are there do
  }
  read();
  for (std::future<void>& other : others) other.get();
  return statuses;
}

Status KvStore::load_part(PlannedPart& part) {
  auto state = read_piece_state(*env_, part.path, part.file_bytes, part.fingerprint, part.id);
  std::lock_guard lock(mutex_);
  StoredPiece* piece = index_.find(part.id.key);
  if (!state.ok()) {
    if (state.status().code() != StatusCode::kFileDamaged) {
      ++stats_.num_read_failures;
    } else if (piece != nullptr && piece->on_disk) {  // not evicted between the plan and the read
      ++stats_.num_damaged;
      forget(*piece);
    }
    return state.status();
  }
  part.state = std::move(state).value();
  ++stats_.num_loaded;
  if (piece != nullptr && piece->state == nullptr) {
    set_state(*piece, part.state);
    trim_ram();
    // Where RAM cannot hold it, whoever reads it does.
    if (stats_.ram_bytes > ram_bound_) clear_state(*piece);
  }
  return {};
}

void KvStore::touch(StoredPiece& piece) {
  piece.last_used = clock_;
  const auto now = std::chrono::steady_clock::now();
  if (!piece.on_disk || now < piece.noted_at + kBetweenNotes) return;
  piece.noted_at = now;
  io_.push([this, path = path_of(piece)] { env_->touch(path); });
}

void KvStore::set_state(StoredPiece& piece, StatePtr state) {
  piece.state = std::move(state);
  stats_.ram_bytes += piece.state_bytes;
  in_ram_.insert(&piece);
  index_.note_in_ram(piece, true);
}

void KvStore::clear_state(StoredPiece& piece) {
  if (piece.state == nullptr) return;
  piece.state.reset();
  stats_.ram_bytes -= piece.state_bytes;
  in_ram_.erase(&piece);
  index_.note_in_ram(piece, false);
}

void KvStore::forget(StoredPiece& piece) {
  clear_state(piece);
  if (piece.on_disk || piece.is_writing()) drop_file(piece);
  index_.remove(piece.id.key);
}

void KvStore::drop_file(StoredPiece& piece) {
  if (piece.on_disk) stats_.disk_bytes -= piece.file_bytes;
  piece.on_disk = false;
  remove_file(piece.id.key, path_of(piece));
}

void KvStore::remove_file(const Hash128& key, std::string path) {
  io_.push([this, key, path = std::move(path)] {
    {
      std::lock_guard lock(mutex_);
      const StoredPiece* found = index_.find(key);
      if (found != nullptr && found->on_disk) return;  // find_files came before
    }
    (void)env_->remove(path);
  });
}

bool KvStore::has_disk_room(const StoredPiece& piece) const {
  const uint64_t bytes = piece_file_bytes(piece.id, piece.state_bytes);
  const uint64_t bound = options_.disk_bytes;
  if (stats_.disk_bytes + bytes <= bound || index_.is_pinned(piece.id.key)) return true;
  return staying_disk_bytes() + bytes <= bound - bound / kHeadroomDivisor;
}

uint64_t KvStore::staying_disk_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [key, count] : index_.pins()) {
    const StoredPiece* piece = index_.find(key);
    bytes += piece != nullptr && piece->on_disk ? piece->file_bytes : unopened_.bytes_of(key);
  }
  return bytes;
}

void KvStore::write_behind(StoredPiece& piece) {
  piece.write = ++last_write_;
  pending_write_bytes_ += piece.state_bytes;
  io_.push([this, write = Write{piece.id, piece.fingerprint, piece.write, piece.state,
                                path_of(piece)}] { run_write(write, /*may_make_room=*/true); });
}

void KvStore::run_write(const Write& write, bool may_make_room) {
  const auto once = [&] {
    return write_piece_file(*env_, write.path, write.fingerprint, write.id, *write.state);
  };
  Status status = once();
  // Somebody may have removed the folder.
  if (!status.ok() && env_->make_folder(folder_of(write.fingerprint)).ok()) status = once();
  const uint64_t file_bytes = piece_file_bytes(write.id, write.state->size());
  std::lock_guard lock(mutex_);
  const StoredPiece* piece = index_.find(write.id.key);
  const bool is_wanted = piece != nullptr && piece->write == write.number &&
                         index_.is_pinned(write.id.key);
  if (status.code() == StatusCode::kDiskFull && may_make_room && is_wanted) {
    // Others may have filled it. What makes way, whatever the bound, is removed before this is
    // written again.
    evict_from_disk(file_bytes + kRecordBytes);
    io_.push([this, write] { run_write(write, /*may_make_room=*/false); });
    return;
  }
  pending_write_bytes_ -= write.state->size();
  finish_write(write.id.key, write.number, status, file_bytes);
}

void KvStore::note_write_failure(const Status& status) {
  ++stats_.num_write_failures;
  last_write_failure_ = status;
}

void KvStore::finish_write(const Hash128& key, uint64_t write, const Status& status,
                           uint64_t file_bytes) {
  if (!status.ok()) note_write_failure(status);
  StoredPiece* piece = index_.find(key);
  if (piece == nullptr || piece->write != write) return;
  piece->write = 0;
  if (!status.ok()) return fit_in_ram(key);
  ++stats_.num_written;
  piece->on_disk = true;
  piece->file_bytes = file_bytes;
  stats_.disk_bytes += file_bytes;
  trim_disk();
  trim_ram();
}

bool KvStore::can_leave_ram(const StoredPiece& piece) const {
  if (piece.state.use_count() > 1) return false;
  return piece.on_disk || (!piece.is_writing() && !index_.is_pinned(piece.id.key));
}

void KvStore::trim_ram() {
  if (stats_.ram_bytes <= ram_bound_) return;
  std::vector<Hash128> keys;
  std::vector<EvictionCandidate> candidates;
  for (const StoredPiece* piece : in_ram_) {
    if (!can_leave_ram(*piece)) continue;
    keys.push_back(piece->id.key);
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

void KvStore::fit_in_ram(const Hash128& key) {
  trim_ram();
  if (stats_.ram_bytes <= ram_bound_) return;
  StoredPiece* piece = index_.find(key);
  if (piece == nullptr || piece->on_disk || piece->is_writing()) return;
  ++stats_.num_dropped;
  forget(*piece);
}

void KvStore::trim_disk() {
  const uint64_t target = options_.disk_bytes - options_.disk_bytes / kHeadroomDivisor;
  if (stats_.disk_bytes > options_.disk_bytes) evict_from_disk(stats_.disk_bytes - target);
}

void KvStore::make_disk_room(uint64_t bytes) {
  {
    std::lock_guard lock(mutex_);
    evict_from_disk(bytes);
  }
  io_.flush();
}

void KvStore::evict_from_disk(uint64_t num_bytes) {
  const uint64_t target = stats_.disk_bytes - std::min(num_bytes, stats_.disk_bytes);
  const auto is_pinned = [&](const Hash128& key) { return index_.is_pinned(key); };
  for (const auto& victim : unopened_.evict(stats_.disk_bytes - target, is_pinned)) {
    ++stats_.num_disk_evictions;
    stats_.disk_bytes -= victim.bytes;
    remove_file(victim.key, folder_of(victim.fingerprint) + "/" + piece_file_name(victim.key));
  }
  if (stats_.disk_bytes <= target) return;
  std::vector<Hash128> keys;
  std::vector<EvictionCandidate> candidates;
  for (const auto& [key, piece] : index_.pieces()) {
    if (!piece->on_disk || index_.is_pinned(key)) continue;
    keys.push_back(key);
    candidates.push_back({piece->file_bytes, piece->last_used, piece->id.end});
  }
  for (const size_t i : pick_victims(candidates, stats_.disk_bytes - target)) {
    ++stats_.num_disk_evictions;
    StoredPiece& piece = *index_.find(keys[i]);
    if (piece.state != nullptr) {
      drop_file(piece);
    } else {
      forget(piece);
    }
  }
}

}  // namespace snapllm
