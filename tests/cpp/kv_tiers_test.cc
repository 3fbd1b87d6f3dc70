// What stays in which tier of the KV store: pins, bounds, and pieces that stand for others.
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <set>
#include <thread>

#include "base/machine.h"
#include "check.h"
#include "kv_store_fixture.h"
#include "store/piece_file.h"
#include "store/store_options.h"

namespace snapllm {
namespace {

using testing::Fixture;
using testing::kFingerprint;
using testing::scope_of;
using testing::tokens_of;
using testing::Tokens;
using testing::operator+;

constexpr int kNumKept = 5;
constexpr uint64_t kSmallDisk = 12 * 1024;  // two of five

TEST(kv_tiers, what_is_pinned_may_exceed_the_disk_and_survives_a_restart) {
  Fixture f(1 << 20, kSmallDisk);
  for (int seed = 0; seed < kNumKept; ++seed) {
    const Tokens tokens = tokens_of(seed, 300);
    f.store->pin(scope_of(), tokens);
    f.save(tokens);
    f.store->flush();
    CHECK(f.store->persist(scope_of(), tokens).ok());
  }
  CHECK(f.store->stats().disk_bytes > kSmallDisk);
  f.reopen();
  for (int seed = 0; seed < kNumKept; ++seed) f.store->pin(scope_of(), tokens_of(seed, 300));
  f.save(tokens_of(100, 300));
  f.store->flush();
  for (int seed = 0; seed < kNumKept; ++seed) CHECK_EQ(f.match(tokens_of(seed, 300)), 300);
  f.reopen();
  CHECK_EQ(f.match(tokens_of(100, 300)), 0);
}

TEST(kv_tiers, at_the_end_ram_is_free_and_what_is_on_disk_stays_there) {
  Fixture f;
  const Tokens tokens = tokens_of(1, 300);
  f.save(tokens);
  f.store->flush();
  f.store->clear_ram();
  CHECK_EQ(f.store->ram_bytes(), 0U);
  f.reopen();
  CHECK_EQ(f.match(tokens), 300);

  Fixture without_disk(1 << 20, 0, "");
  without_disk.store->pin(scope_of(), tokens);
  without_disk.save(tokens);
  without_disk.store->clear_ram();
  CHECK_EQ(without_disk.store->ram_bytes(), 0U);
  CHECK_EQ(without_disk.match(tokens), 0);
}

TEST(kv_tiers, what_requests_hold_while_they_wait_is_within_the_bound_of_ram) {
  constexpr uint64_t kBytes = 300 * sizeof(Hash128);
  Fixture f(3 * kBytes);
  for (int seed = 0; seed < kNumKept; ++seed) f.save(tokens_of(seed, 300));
  f.store->flush();
  f.reopen();
  std::vector<StoredPrefix> held;
  std::map<const StateBytes*, uint64_t> states;
  for (int seed = 0; seed < kNumKept; ++seed) {
    held.push_back(f.store->match(scope_of(), tokens_of(seed, 300), 300, Reading::kFitting));
    for (const auto& part : held.back().parts) states[part.state.get()] = part.state->size();
  }
  uint64_t bytes = 0;
  for (const auto& [state, size] : states) bytes += size;
  CHECK_EQ(bytes, 3 * kBytes);
  CHECK_EQ(f.store->ram_bytes(), bytes);
  CHECK_EQ(held[3].num_tokens, 0);
  CHECK_EQ(held[3].num_unread_tokens, 300);
  // What nobody holds any more makes room.
  held.clear();
  CHECK_EQ(f.store->match(scope_of(), tokens_of(3, 300), 300, Reading::kFitting).num_tokens, 300);
  CHECK(f.store->ram_bytes() <= 3 * kBytes);
}

TEST(kv_tiers, more_than_ram_holds_is_read_by_whoever_wants_all) {
  Fixture f(2000);
  f.save(tokens_of(1, 100));
  f.store->flush();
  const Tokens tokens = tokens_of(1, 100) + tokens_of(2, 600);
  Fixture large;
  large.save(tokens);
  large.store->flush();
  f.disk->files = large.disk->files;
  f.reopen();
  CHECK_EQ(f.match(tokens, scope_of(), Reading::kFitting), 0);
  CHECK_EQ(f.match(tokens), 700);
  CHECK(f.store->ram_bytes() <= 2000);
}

TEST(kv_tiers, what_would_leave_the_disk_at_once_is_kept_in_ram_and_not_written) {
  Fixture f(1 << 20, kSmallDisk);
  const Tokens pinned = tokens_of(1, 1000), other = tokens_of(2, 300);
  f.store->pin(scope_of(), pinned);
  f.save(pinned);
  CHECK(f.store->persist(scope_of(), pinned).ok());
  const uint64_t num_written = f.store->stats().num_written;
  f.save(other);
  f.store->flush();
  CHECK_EQ(f.store->stats().num_written, num_written);
  CHECK_EQ(f.match(other), 300);
  CHECK_EQ(f.store->persist(scope_of(), other).code(), StatusCode::kStorageFailed);
  f.store->pin(scope_of(), other);
  CHECK(f.store->persist(scope_of(), other).ok());
}

TEST(kv_tiers, what_leaves_the_disk_stays_in_ram_and_can_come_back) {
  Fixture f(1 << 20, kSmallDisk);
  for (int seed = 0; seed < kNumKept; ++seed) {
    f.save(tokens_of(seed, 300));
    f.store->flush();
  }
  CHECK(f.store->stats().disk_bytes <= kSmallDisk);
  CHECK(f.store->stats().num_disk_evictions > 0);
  CHECK_EQ(f.store->ram_bytes(), kNumKept * 300 * sizeof(Hash128));
  for (int seed = 0; seed < kNumKept; ++seed) CHECK_EQ(f.match(tokens_of(seed, 300)), 300);
  const Tokens first = tokens_of(0, 300);
  CHECK_EQ(f.store->usage(scope_of(), first).num_disk_tokens, 0);
  CHECK(f.store->persist(scope_of(), first).ok());
  CHECK(f.store->stats().disk_bytes <= kSmallDisk);
  f.reopen();
  CHECK_EQ(f.match(first), 300);
  CHECK_EQ(f.store->stats().disk_bytes, f.file_bytes());
}

TEST(kv_tiers, a_piece_that_was_put_again_is_on_disk_when_its_own_write_has_ended) {
  for (const bool is_full : {false, true}) {
    std::promise<void> gate;
    Fixture f;
    int num_writes = 0;
    f.disk->before_write = [&, opened = gate.get_future().share()] {
      opened.wait();
      if (++num_writes > 1 && is_full) f.disk->free_bytes = 0;
    };
    const Tokens tokens = tokens_of(1, 40);
    f.save(tokens);
    f.save(tokens + tokens_of(2, 10));  // takes its place while it is being written
    f.store->pin(scope_of(), tokens);
    f.save(tokens);
    gate.set_value();
    CHECK_EQ(f.store->persist(scope_of(), tokens).ok(), !is_full);
    CHECK_EQ(f.store->drop_from_ram(scope_of(), tokens).ok(), !is_full);
    CHECK_EQ(f.match(tokens), 40);
    CHECK_EQ(f.store->stats().disk_bytes, f.file_bytes());
  }
}

TEST(kv_tiers, the_first_write_after_a_restart_brings_the_disk_below_its_bound) {
  Fixture roomy;
  for (int seed = 0; seed < kNumKept; ++seed) roomy.save(tokens_of(seed, 300));
  roomy.store->flush();
  Fixture f(1 << 20, kSmallDisk);
  f.disk->files = roomy.disk->files;
  f.reopen();
  f.save(tokens_of(100, 300));
  f.store->flush();
  CHECK(f.store->stats().disk_bytes <= kSmallDisk);
}

// What another model's store leaves behind.
StoreScope scope_of_other() {
  const Hash128 fingerprint{33, 44};
  return {fingerprint, root_key(fingerprint, KvKind::kBlocks, ""), KvKind::kBlocks};
}

TEST(kv_tiers, files_of_models_that_nobody_opened_count_and_go_first) {
  const uint64_t bytes = 16 * 256 + 2048;  // of a block's file, and some more
  Fixture f(1 << 20, 8 * bytes);
  f.store->open(scope_of_other().fingerprint);
  f.save(tokens_of(1, 256));
  for (int seed = 10; seed < 16; ++seed) f.save(tokens_of(seed, 256), scope_of_other());
  f.store->flush();
  const uint64_t held = f.store->stats().disk_bytes;
  CHECK_EQ(held, f.file_bytes());
  f.reopen();  // but for the other one
  CHECK_EQ(f.store->stats().disk_bytes, held);
  f.store->pin(scope_of_other(), tokens_of(10, 256));  // a context of its
  for (int seed = 2; seed < 8; ++seed) f.save(tokens_of(seed, 256));
  f.store->flush();
  CHECK_EQ(f.store->stats().disk_bytes, f.file_bytes());
  CHECK(f.file_bytes() <= f.disk_bound);
  for (int seed = 1; seed < 8; ++seed) CHECK_EQ(f.match(tokens_of(seed, 256)), 256);
  f.reopen();
  for (int seed = 1; seed < 8; ++seed) CHECK_EQ(f.match(tokens_of(seed, 256)), 256);
  f.store->open(scope_of_other().fingerprint);
  CHECK_EQ(f.store->stats().disk_bytes, f.file_bytes());
  CHECK_EQ(f.match(tokens_of(10, 256), scope_of_other()), 256);
  CHECK_EQ(f.match(tokens_of(11, 256), scope_of_other()), 0);
}

TEST(kv_tiers, a_model_that_is_opened_while_its_files_are_to_go_keeps_those_it_finds) {
  const uint64_t bytes = 16 * 256 + 2048;
  Fixture f(1 << 20, 4 * bytes);
  f.store->open(scope_of_other().fingerprint);
  for (int seed = 10; seed < 13; ++seed) f.save(tokens_of(seed, 256), scope_of_other());
  f.store->flush();
  f.reopen();
  f.store->flush();
  std::promise<void> go_on;
  std::shared_future<void> gone_on = go_on.get_future().share();
  f.disk->before_write = [gone_on] { gone_on.wait(); };
  for (int seed = 1; seed < 4; ++seed) f.save(tokens_of(seed, 256));  // more than there is room for
  auto opening =
      std::async(std::launch::async, [&] { f.store->open(scope_of_other().fingerprint); });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));  // behind the writes
  go_on.set_value();
  opening.get();
  f.store->flush();
  f.disk->before_write = nullptr;
  CHECK_EQ(f.store->stats().disk_bytes, f.file_bytes());
  const uint64_t num_damaged = f.store->stats().num_damaged;
  for (int seed = 10; seed < 13; ++seed) {
    const auto missing = f.store->missing(scope_of_other(), tokens_of(seed, 256));
    if (missing.empty()) CHECK_EQ(f.match(tokens_of(seed, 256), scope_of_other()), 256);
  }
  CHECK_EQ(f.store->stats().num_damaged, num_damaged);
}

TEST(kv_tiers, files_of_an_opened_model_that_cannot_be_read_go_on_counting) {
  Fixture f;
  f.store->open(scope_of_other().fingerprint);
  for (int seed = 10; seed < 13; ++seed) f.save(tokens_of(seed, 256), scope_of_other());
  f.store->flush();
  f.reopen();
  f.store->flush();
  f.disk->reads_until_failure = 1;
  f.store->open(scope_of_other().fingerprint);
  CHECK_EQ(f.store->stats().disk_bytes, f.file_bytes());
  f.disk->reads_until_failure = -1;
  f.store->open(scope_of_other().fingerprint);
  CHECK_EQ(f.store->stats().disk_bytes, f.file_bytes());
  for (int seed = 10; seed < 13; ++seed) {
    CHECK_EQ(f.match(tokens_of(seed, 256), scope_of_other()), 256);
  }
}

TEST(kv_tiers, a_prefix_that_is_looked_for_again_and_again_is_not_noted_each_time) {
  Fixture f;
  f.save(tokens_of(1, 256));
  f.store->flush();
  f.reopen();
  const int64_t before = f.disk->clock;
  for (int i = 0; i < 100; ++i) CHECK_EQ(f.match(tokens_of(1, 256)), 256);
  f.store->flush();
  CHECK(f.disk->clock - before < 50);
  CHECK(f.disk->clock > before);
}

TEST(kv_tiers, a_pin_holds_for_what_is_put_later_and_until_the_last_is_undone) {
  Fixture f;
  const Tokens tokens = tokens_of(1, 300);
  const auto is_there = [&] { return f.match(tokens) == 300; };
  f.store->pin(scope_of(), tokens);
  f.save(tokens);
  f.store->remove(scope_of(), tokens);
  CHECK(is_there());
  f.store->pin(scope_of(), tokens);
  f.store->unpin(scope_of(), tokens);
  f.store->remove(scope_of(), tokens);
  CHECK(is_there());
  f.store->unpin(scope_of(), tokens);
  f.store->remove(scope_of(), tokens);
  CHECK(!is_there());
}

TEST(kv_tiers, pins_do_not_fill_ram_without_a_disk_or_with_one_that_fails) {
  constexpr uint64_t kRam = 32 * 1024;
  for (const bool has_disk : {false, true}) {
    Fixture f(kRam, 1 << 20, has_disk ? "/w" : "");
    f.disk->is_read_only = true;
    for (int seed = 0; seed < 20; ++seed) {
      const Tokens tokens = tokens_of(seed, 300);
      f.store->pin(scope_of(), tokens);
      f.save(tokens);
      f.store->flush();
      CHECK(f.store->ram_bytes() <= kRam);
    }
    CHECK_EQ(f.match(tokens_of(0, 300)), 300);
    CHECK_EQ(f.store->persist(scope_of(), tokens_of(19, 300)).code(), StatusCode::kStorageFailed);
  }
}

// A document that is kept, and a longer answer about it, whose last piece holds the
// document's last one too.
struct Answered : Fixture {
  Answered() {
    store->pin(scope_of(), document);
    save(document);
    save(answer);
    store->flush();
    reopen();
    store->pin(scope_of(), document);
  }

  const Tokens document = tokens_of(1, 300);
  const Tokens answer = document + Tokens(40, 200);
};

TEST(kv_tiers, tokens_are_in_ram_whichever_piece_has_them_there) {
  Answered f;
  CHECK_EQ(f.match(f.answer), 340);
  CHECK_EQ(f.store->stats().num_loaded, 2);
  const auto usage = f.store->usage(scope_of(), f.document);
  CHECK_EQ(usage.num_ram_tokens, 300);
  CHECK_EQ(usage.ram_bytes, f.store->ram_bytes());
  CHECK_EQ(f.match(f.document + Tokens(40, 300), scope_of(), Reading::kNone), 300);
}

TEST(kv_tiers, where_a_file_is_gone_another_that_holds_as_much_is_taken) {
  Answered f;
  const auto last = piece_keys(KvKind::kBlocks, scope_of().root, f.answer).back();
  CHECK_EQ(f.disk->files.erase("/w/" + kFingerprint.hex() + "/" + piece_file_name(last)), 1);
  CHECK_EQ(f.match(f.answer), 300);
}

TEST(kv_tiers, a_short_tail_is_found_though_a_longer_piece_begins_with_it) {
  const Tokens document = tokens_of(1, 260);  // of its last piece fewer than are worth a restore
  const Tokens answer = document + Tokens(40, 200);
  for (const bool longer_in_ram : {false, true}) {
    Fixture f;
    f.store->pin(scope_of(), document);
    f.save(answer);
    f.save(document);
    f.store->flush();
    f.reopen();
    if (longer_in_ram) CHECK_EQ(f.match(answer), 300);
    CHECK_EQ(f.match(document), 260);
  }
}

TEST(kv_tiers, a_piece_too_little_of_which_is_there_hides_no_shorter_one) {
  const Tokens document = tokens_of(1, 2 * kBlockTokens + 1);
  const Tokens question = document + Tokens(1, 200);
  Fixture f;
  f.store->pin(scope_of(), document);
  f.save(document);
  f.save(question + Tokens(40, 201));
  // One token more of the longer piece, but fewer than are worth a restore of it.
  CHECK_EQ(f.match(question + Tokens(40, 202)), 2 * kBlockTokens + 1);
  CHECK_EQ(f.store->match(scope_of(), question + Tokens(40, 202), 2000, Reading::kAll).difference.at,
           2 * kBlockTokens + 2);
}

TEST(kv_tiers, after_a_flush_no_file_is_left_to_be_removed) {
  for (int round = 0; round < 20; ++round) {
    Fixture f(1 << 20, kSmallDisk);
    for (int seed = 0; seed < 2 * kNumKept; ++seed) f.save(tokens_of(seed, 300));
    f.store->flush();
    const auto num_files = f.disk->files.size();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::lock_guard lock(f.disk->mutex);
    CHECK_EQ(f.disk->files.size(), num_files);
  }
}

TEST(kv_tiers, a_demotion_takes_along_what_holds_the_same_tokens) {
  Answered f;
  CHECK_EQ(f.match(f.answer), 340);
  const std::vector<Tokens> kept = {f.document};
  CHECK(f.store->drop_from_ram(scope_of(), f.answer, kept).ok());
  CHECK_EQ(f.store->usage(scope_of(), f.document).num_ram_tokens, 300);
  CHECK(f.store->drop_from_ram(scope_of(), f.document).ok());
  CHECK_EQ(f.store->ram_bytes(), 0);
  CHECK_EQ(f.match(f.answer), 340);
}

// Blocks of 4 MB on disk only, as after a restart.
struct LargeBlocks : Fixture {
  LargeBlocks() : Fixture(uint64_t{64} << 20, uint64_t{64} << 20) {
    for (const TokenRange range : store->missing(scope_of(), tokens)) {
      StateBytes state = testing::state_of(tokens, range);
      state.resize(4 << 20, 0);
      store->put(scope_of(), tokens, range, std::move(state));
    }
    store->flush();
    reopen();
  }
  const Tokens tokens = tokens_of(1, 4 * kBlockTokens);
};

TEST(kv_tiers, large_blocks_are_read_by_several_threads_at_once) {
  if (available_cpus() < 2) return;
  LargeBlocks f;
  std::mutex mutex;
  std::condition_variable changed;
  std::set<std::thread::id> readers;
  f.disk->before_read = [&] {
    std::unique_lock lock(mutex);
    readers.insert(std::this_thread::get_id());
    changed.notify_all();
    CHECK(changed.wait_for(lock, std::chrono::seconds(60), [&] { return readers.size() >= 2; }));
  };
  CHECK_EQ(f.match(f.tokens), 4 * kBlockTokens);
  CHECK_EQ(f.store->stats().num_loaded, 4);
}

TEST(kv_tiers, of_blocks_read_at_once_those_before_a_damaged_one_are_taken) {
  LargeBlocks f;
  const auto keys = piece_keys(KvKind::kBlocks, scope_of().root, f.tokens);
  auto& file = f.disk->files.at("/w/" + kFingerprint.hex() + "/" + piece_file_name(keys[2]));
  file.back() ^= 1;
  CHECK_EQ(f.match(f.tokens), 2 * kBlockTokens);
  CHECK_EQ(f.store->stats().num_damaged, 1);
}

TEST(kv_tiers, the_chosen_bound_of_the_disk_does_not_shrink_as_the_store_fills) {
  constexpr uint64_t kSpace = uint64_t{8} << 30;
  for (const uint64_t held : {uint64_t{0}, kSpace / 4, kSpace / 2}) {
    CHECK_EQ(auto_disk_bytes(kSpace - held, held), kSpace / 4);
  }
  // What the workspace holds is found: with it the bound is the largest that is ever chosen.
  std::string pattern = (std::filesystem::temp_directory_path() / "snapllm_XXXXXX").string();
  REQUIRE(mkdtemp(pattern.data()) != nullptr);
  const std::filesystem::path workspace = pattern;
  std::filesystem::create_directories(workspace / "kv" / "model");
  const auto file = workspace / "kv" / "model" / "piece.kv";
  std::ofstream(file).close();
  std::filesystem::resize_file(file, uint64_t{100} << 30);  // takes no space: it has only holes
  EngineOptions options;
  options.workspace = workspace.string();
  CHECK_EQ(store_options(options).disk_bytes, uint64_t{20} << 30);
  std::filesystem::remove_all(workspace);
}

}  // namespace
}  // namespace snapllm
