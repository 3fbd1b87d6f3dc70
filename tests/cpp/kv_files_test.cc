// Files of the KV store that cannot be read for a while, and looks at a model's folder.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "kv_store_fixture.h"
#include "store/piece_file.h"

namespace snapllm {
namespace {

using testing::Fixture;
using testing::kFingerprint;
using testing::scope_of;
using testing::tokens_of;
using testing::Tokens;

// 600 tokens of an earlier run, in three files.
struct Kept : Fixture {
  Kept() {
    save(tokens);
    store->flush();
    reopen();
    store->pin(scope_of(), tokens);
  }

  void expect_untouched() {
    store->flush();
    CHECK_EQ(disk->files.size(), 3);
    CHECK_EQ(store->stats().num_damaged, 0);
    CHECK(store->stats().num_read_failures > 0);
  }

  const Tokens tokens = tokens_of(1, 600);
};

TEST(kv_files, what_cannot_be_read_for_a_while_is_a_miss_and_stays) {
  Kept f;
  f.disk->reads_until_failure = 0;
  CHECK_EQ(f.match(f.tokens), 0);
  const auto states = f.store->states(scope_of(), f.tokens);
  REQUIRE(!states.ok());
  CHECK_EQ(states.status().code(), StatusCode::kStorageFailed);
  CHECK_EQ(states.status().message(), "too many open files");
  f.expect_untouched();
  f.disk->reads_until_failure = -1;
  CHECK_EQ(f.match(f.tokens), 600);
}

TEST(kv_files, a_state_that_memory_cannot_hold_is_not_read_and_its_file_stays) {
  auto disk = std::make_shared<testing::FakeDisk>();
  testing::FakeFileEnv env(disk);
  const Tokens tokens = tokens_of(1, 8);
  const PieceId piece = make_piece(scope_of().root, scope_of().kind, 0, tokens);
  REQUIRE(write_piece_file(env, "piece", kFingerprint, piece, StateBytes(64)).ok());
  std::vector<uint8_t>& file = disk->files["piece"];
  // As docs/store_format.md has it: the size of the state, and the checksum of the header.
  constexpr size_t kStateBytesAt = 72;
  constexpr size_t kChecksumAt = 88;
  const uint64_t state_bytes = uint64_t{1} << 60;
  std::memcpy(file.data() + kStateBytesAt, &state_bytes, sizeof state_bytes);
  const uint64_t checksum = xxh64(tokens.data(), tokens.size() * sizeof(Token),
                                  xxh64(file.data(), kChecksumAt));
  std::memcpy(file.data() + kChecksumAt, &checksum, sizeof checksum);
  const auto state = read_piece_state(env, "piece", piece_file_bytes(piece, state_bytes),
                                      kFingerprint, piece);
  REQUIRE(!state.ok());
  CHECK_EQ(state.status().code(), StatusCode::kStorageFailed);
}

TEST(kv_files, what_comes_before_a_piece_that_cannot_be_read_is_used) {
  Kept f;
  f.disk->reads_until_failure = 3 + 1;  // one piece: header, tokens and state
  CHECK_EQ(f.match(f.tokens), 256);
  f.expect_untouched();
}

TEST(kv_files, what_cannot_be_read_at_the_start_stays_and_is_found_later) {
  Kept f;
  f.disk->reads_until_failure = 2;  // one file's header and tokens
  f.reopen();
  CHECK_EQ(f.store->stats().num_read_failures, 2);
  f.expect_untouched();
  f.disk->reads_until_failure = -1;
  f.store->open(kFingerprint);
  CHECK_EQ(f.match(f.tokens), 600);
  CHECK_EQ(f.store->stats().disk_bytes, f.file_bytes());
}

TEST(kv_files, a_folder_that_cannot_be_made_or_listed_is_said_and_looked_at_again) {
  for (const bool is_made : {false, true}) {
    Kept f;
    (is_made ? f.disk->cannot_list : f.disk->is_read_only) = true;
    f.reopen();
    const auto stats = f.store->stats();
    CHECK_EQ(is_made ? stats.num_read_failures : stats.num_write_failures, 1);
    CHECK_EQ(f.match(f.tokens), 0);
    f.disk->cannot_list = f.disk->is_read_only = false;
    f.store->open(kFingerprint);
    CHECK_EQ(f.match(f.tokens), 600);
  }
}

TEST(kv_files, a_late_look_at_the_folder_counts_what_is_in_ram_once) {
  Kept f;
  f.disk->cannot_list = true;
  f.reopen();
  f.save(f.tokens);  // over the files of the run before
  f.disk->cannot_list = false;
  f.store->open(kFingerprint);
  f.store->flush();
  CHECK_EQ(f.store->stats().num_pieces, 3);
  CHECK_EQ(f.store->stats().disk_bytes, f.file_bytes());
  CHECK_EQ(f.match(f.tokens), 600);
}

TEST(kv_files, what_is_forgotten_while_a_late_look_finds_its_file_keeps_the_file) {
  Kept f;
  f.disk->cannot_list = true;
  f.reopen();
  f.save(f.tokens);
  f.store->flush();
  f.disk->cannot_list = false;
  std::once_flag once;
  f.disk->before_read = [&] {
    std::call_once(once, [&] { f.store->remove(scope_of(), f.tokens); });
  };
  f.store->open(kFingerprint);
  f.store->flush();
  CHECK_EQ(f.match(f.tokens), 600);
  CHECK_EQ(f.store->stats().disk_bytes, f.file_bytes());
}

TEST(kv_files, a_look_at_a_folder_keeps_no_other_model_waiting) {
  Kept f;
  f.store = std::make_unique<KvStore>(KvStoreOptions{f.ram_bytes, f.disk_bound, f.folder},
                                      std::make_unique<testing::FakeFileEnv>(f.disk));
  std::promise<void> reading, matched;
  std::once_flag once;
  bool was_in_time = true;
  f.disk->before_read = [&] {
    std::call_once(once, [&] {
      reading.set_value();
      was_in_time = matched.get_future().wait_for(std::chrono::seconds(5)) == std::future_status::ready;
    });
  };
  int32_t num_found[2] = {};
  std::vector<std::jthread> openers;
  for (int32_t& found : num_found) {
    openers.emplace_back([&] {
      f.store->open(kFingerprint);
      found = f.store->match(scope_of(), f.tokens, 600, Reading::kAll).num_tokens;
    });
  }
  reading.get_future().wait();
  const Hash128 other{33, 44};
  const StoreScope scope{other, root_key(other, KvKind::kBlocks, ""), KvKind::kBlocks};
  CHECK_EQ(f.store->match(scope, f.tokens, 600, Reading::kAll).num_tokens, 0);
  matched.set_value();
  openers.clear();  // joins them
  CHECK(was_in_time);
  CHECK_EQ(num_found[0], 600);
  CHECK_EQ(num_found[1], 600);
}

TEST(kv_files, a_lock_that_a_forked_child_abandons_ends_with_its_parents) {
  std::string folder = (std::filesystem::temp_directory_path() / "snapllm_XXXXXX").string();
  REQUIRE(mkdtemp(folder.data()) != nullptr);
  auto lock = FolderLock::acquire(folder);
  REQUIRE(lock.ok());
  int pipe_ends[2];
  REQUIRE(::pipe(pipe_ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    lock.value()->abandon();
    ::close(pipe_ends[1]);
    char byte = 0;
    (void)!::read(pipe_ends[0], &byte, 1);  // until its parent lets it end
    ::_exit(0);
  }
  CHECK(!FolderLock::acquire(folder).ok());  // the child leaves it to its parent, not to all
  lock = Status(StatusCode::kClosed, "closed");
  const auto deadline = testing::far_deadline();
  bool is_free = false;
  while (!is_free && std::chrono::steady_clock::now() < deadline) {
    is_free = FolderLock::acquire(folder).ok();  // the child may have just begun
  }
  CHECK(is_free);
  ::close(pipe_ends[1]);
  ::close(pipe_ends[0]);
  CHECK_EQ(::waitpid(child, nullptr, 0), child);
  std::filesystem::remove_all(folder);
}

TEST(kv_files, the_machine_s_files_tell_what_is_gone_or_short_from_what_cannot_be_read) {
  std::string pattern = (std::filesystem::temp_directory_path() / "snapllm_XXXXXX").string();
  REQUIRE(mkdtemp(pattern.data()) != nullptr);
  const std::filesystem::path folder = pattern;
  std::ofstream(folder / "short") << "abc";
  const auto env = posix_file_env();
  char bytes[4];
  CHECK(env->read(folder / "short", 0, bytes, 3).ok());
  CHECK_EQ(env->read(folder / "short", 0, bytes, 4).code(), StatusCode::kFileDamaged);
  CHECK_EQ(env->read(folder / "gone", 0, bytes, 1).code(), StatusCode::kFileDamaged);
  CHECK_EQ(env->read(folder, 0, bytes, 1).code(), StatusCode::kStorageFailed);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace snapllm
