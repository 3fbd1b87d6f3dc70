#include "store/kv_store.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "check.h"
#include "kv_store_fixture.h"
#include "store/eviction.h"
#include "store/piece_file.h"

namespace snapllm {
namespace {

using testing::Fixture;
using testing::kFingerprint;
using testing::scope_of;
using testing::tokens_of;
using testing::Tokens;
using testing::operator+;

TEST(kv_store, xxh64_is_the_published_one) {
  CHECK_EQ(xxh64("", 0), 0xEF46DB3751D8E999u);
  CHECK_EQ(xxh64("abc", 3), 0x44BC2CF5AD770999u);
  const std::string text = "Nobody inspects the spammish repetition";
  CHECK_EQ(xxh64(text.data(), text.size()), 0xFBCEA83C8A378BF1u);
}

TEST(kv_store, the_hashes_of_all_beginnings_take_one_pass) {
  const Tokens tokens = tokens_of(1, 40);
  const Hash128 parent{5, 6};
  PrefixHash128 keys(tokens.data(), parent);
  for (size_t size = 0; size <= tokens.size() * sizeof(Token); size += 1 + size / 16) {
    CHECK(keys.hash(size) == hash128(tokens.data(), size, parent));
    CHECK(keys.hash(size) == hash128(tokens.data(), size, parent));
  }
}

TEST(kv_store, a_prompt_finds_its_longest_stored_prefix) {
  Fixture f;
  const Tokens common = tokens_of(1, 700);
  f.save(common);
  CHECK_EQ(f.match(common), 700);
  CHECK_EQ(f.match(common + tokens_of(2, 50)), 700);
  CHECK_EQ(f.match(Tokens(common.begin(), common.begin() + 257)), 256);  // one token is not worth it
  for (const size_t length : {20u, 255u, 256u, 264u, 511u, 512u, 600u}) {
    const Tokens begin(common.begin(), common.begin() + static_cast<ptrdiff_t>(length));
    // 200 is no token of common.
    CHECK_EQ(f.match(begin + Tokens(300, 200)), static_cast<int32_t>(length));
    CHECK_EQ(f.match(begin), static_cast<int32_t>(length));
  }
  CHECK_EQ(f.match(tokens_of(3, 700)), 0);
}

TEST(kv_store, a_miss_names_the_token_that_was_cached) {
  Fixture f;
  const Tokens stored = tokens_of(1, 300);
  f.save(stored);
  Tokens prompt = stored;
  prompt[280] = 200;
  const auto prefix = f.store->match(scope_of(), prompt, 300, Reading::kAll);
  CHECK_EQ(prefix.num_tokens, 280);
  CHECK_EQ(prefix.difference.at, 280);
  CHECK_EQ(prefix.difference.cached_token, stored[280]);
}

TEST(kv_store, what_is_cached_beyond_the_prompt_is_no_difference) {
  Fixture f;
  const Tokens stored = tokens_of(1, 300);
  f.save(stored);
  const Tokens prompt(stored.begin(), stored.begin() + 100);
  const auto prefix = f.store->match(scope_of(), prompt, 99, Reading::kAll);
  CHECK_EQ(prefix.num_tokens, 99);
  CHECK_EQ(prefix.difference.at, -1);
}

TEST(kv_store, a_difference_before_there_is_enough_to_reuse_has_its_place) {
  Fixture f;
  const Tokens stored = tokens_of(1, 600);
  f.save(stored);
  for (const int32_t at : {0, 3, 256, 258}) {
    Tokens prompt = stored;
    prompt[static_cast<size_t>(at)] = 200;
    const auto prefix = f.store->match(scope_of(), prompt, 600, Reading::kAll);
    CHECK_EQ(prefix.num_tokens, at / 256 * 256);
    CHECK_EQ(prefix.difference.at, at);
    CHECK_EQ(prefix.difference.cached_token, stored[static_cast<size_t>(at)]);
  }
}

TEST(kv_store, of_whole_states_too_a_miss_names_the_token_that_was_cached) {
  Fixture f;
  const auto scope = scope_of(KvKind::kCheckpoints);
  const Tokens turn = tokens_of(1, 100);
  const Tokens answered = turn + tokens_of(2, 60);
  const auto match = [&](const Tokens& prompt) {
    const auto max_tokens = static_cast<int32_t>(prompt.size()) - 1;
    return f.store->match(scope, prompt, max_tokens, Reading::kAll);
  };
  CHECK_EQ(match(turn).difference.at, -1);  // nothing is there
  for (const Tokens& stored : {turn, answered, Tokens(20, 150)}) f.save(stored, scope);
  for (const int32_t at : {60, 100, 130}) {
    for (const Token other : {-1, 200}) {  // it stands before them in order, or after them
      Tokens prompt = answered + tokens_of(3, 40);
      prompt[static_cast<size_t>(at)] = other;
      const auto prefix = match(prompt);
      CHECK_EQ(prefix.num_tokens, at < 100 ? 0 : 100);
      CHECK_EQ(prefix.difference.at, at);
      CHECK_EQ(prefix.difference.cached_token, answered[static_cast<size_t>(at)]);
    }
  }
  CHECK_EQ(match(answered + tokens_of(3, 40)).difference.at, -1);
  CHECK_EQ(match(turn).difference.at, -1);  // what is cached beyond the prompt
}

TEST(kv_store, namespaces_and_models_share_nothing) {
  Fixture f;
  const Tokens tokens = tokens_of(1, 300);
  f.save(tokens);
  CHECK_EQ(f.match(tokens, scope_of(KvKind::kBlocks, "other")), 0);
  const Hash128 other{33, 44};
  CHECK_EQ(f.match(tokens, {other, root_key(other, KvKind::kBlocks, ""), KvKind::kBlocks}), 0);
}

TEST(kv_store, a_common_prefix_is_stored_once) {
  Fixture f;
  const Tokens common = tokens_of(1, 512);
  f.save(common + tokens_of(2, 256));
  const uint64_t before = f.store->stats().ram_bytes;
  f.save(common + tokens_of(3, 256));
  CHECK_EQ(f.store->stats().ram_bytes - before, 256 * 16);
}

TEST(kv_store, a_longer_tail_takes_the_place_of_the_shorter) {
  Fixture f;
  const Tokens all = tokens_of(1, 300);
  for (const int length : {20, 100, 255, 256, 280}) f.save(Tokens(all.begin(), all.begin() + length));
  f.store->flush();
  CHECK_EQ(f.store->stats().num_pieces, 2);
  CHECK_EQ(f.disk->files.size(), 2);
}

TEST(kv_store, checkpoints_match_only_whole) {
  Fixture f;
  const auto scope = scope_of(KvKind::kCheckpoints);
  const Tokens all = tokens_of(1, 400);
  for (const int length : {100, 300}) f.save(Tokens(all.begin(), all.begin() + length), scope);
  CHECK_EQ(f.match(all, scope), 300);
  CHECK_EQ(f.match(Tokens(all.begin(), all.begin() + 299), scope), 100);
  CHECK_EQ(f.match(Tokens(all.begin(), all.begin() + 99), scope), 0);
}

TEST(kv_store, many_checkpoints_do_not_have_the_prompt_hashed_for_each) {
  using Clock = std::chrono::steady_clock;
  const auto scope = scope_of(KvKind::kCheckpoints);
  PieceIndex index;
  for (int end = 1000; end < 29'000; end += 7) {
    StoredPiece piece;
    piece.id = make_piece(scope.root, scope.kind, 0, Tokens(static_cast<size_t>(end), 200));
    index.insert(std::move(piece));
  }
  const Tokens prompt = tokens_of(1, 30'000);
  auto of_match = Clock::duration::max(), of_hash = of_match;
  for (int i = 0; i < 5; ++i) {
    const auto start = Clock::now();
    CHECK_EQ(index.match(scope, prompt, 30'000).num_tokens, 0);
    const auto middle = Clock::now();
    CHECK(hash128(prompt.data(), prompt.size() * sizeof(Token)) != Hash128{});
    of_match = std::min(of_match, middle - start);
    of_hash = std::min(of_hash, Clock::now() - middle);
  }
  CHECK(of_match < of_hash * 200);
}

TEST(kv_store, a_restart_finds_everything_on_disk) {
  Fixture f;
  const Tokens tokens = tokens_of(1, 700);
  f.save(tokens);
  CHECK(f.store->persist(scope_of(), tokens).ok());
  f.reopen();
  CHECK_EQ(f.match(tokens, scope_of(), Reading::kNone), 0);
  CHECK_EQ(f.match(tokens), 700);
  CHECK_EQ(f.store->stats().num_loaded, 3);
  CHECK_EQ(f.match(tokens, scope_of(), Reading::kNone), 700);
}

TEST(kv_store, tiers_stay_within_their_bounds_and_pins_stay) {
  Fixture f(64 * 1024, 128 * 1024);
  const Tokens pinned = tokens_of(1000, 300);
  f.save(pinned);
  CHECK(f.store->persist(scope_of(), pinned).ok());
  f.store->pin(scope_of(), pinned);
  for (int i = 0; i < 100; ++i) {
    const Tokens tokens = tokens_of(i, 300);
    f.save(tokens);
    f.store->flush();
    CHECK_EQ(f.match(tokens), 300);
    const auto stats = f.store->stats();
    CHECK(stats.ram_bytes <= f.ram_bytes);
    CHECK(stats.disk_bytes <= f.disk_bound);
  }
  CHECK(f.store->stats().num_ram_evictions > 0);
  CHECK(f.store->stats().num_disk_evictions > 0);
  CHECK_EQ(f.match(pinned), 300);
  CHECK_EQ(f.match(tokens_of(0, 300)), 0);
  f.store->unpin(scope_of(), pinned);
  f.store->remove(scope_of(), pinned);
  CHECK_EQ(f.match(pinned), 0);
}

TEST(kv_store, removing_a_prefix_leaves_what_others_build_on) {
  Fixture f;
  const Tokens common = tokens_of(1, 512);
  f.save(common);
  f.save(common + tokens_of(2, 100));
  f.store->remove(scope_of(), common);
  CHECK_EQ(f.match(common + tokens_of(2, 100)), 612);
}

TEST(kv_store, moving_to_cold_leaves_ram) {
  Fixture f;
  const Tokens tokens = tokens_of(1, 300);
  f.save(tokens);
  CHECK(f.store->drop_from_ram(scope_of(), tokens).ok());
  CHECK_EQ(f.store->stats().ram_bytes, 0);
  const auto usage = f.store->usage(scope_of(), tokens);
  CHECK_EQ(usage.num_ram_tokens, 0);
  CHECK_EQ(usage.num_disk_tokens, 300);
  CHECK(f.store->is_cold(scope_of(), tokens, 300));
  CHECK(!f.store->is_cold(scope_of(), tokens_of(2, 300), 300));
  CHECK(f.store->states(scope_of(), tokens).ok());
  CHECK_EQ(f.store->usage(scope_of(), tokens).num_ram_tokens, 300);
  CHECK(!f.store->is_cold(scope_of(), tokens, 300));
  CHECK_EQ(f.match(tokens), 300);
}

TEST(kv_store, every_flipped_byte_of_a_file_is_a_miss) {
  Fixture f;
  const Tokens tokens = tokens_of(1, 40);
  f.save(tokens);
  f.store->flush();
  REQUIRE(f.disk->files.size() == 1);
  const auto [path, bytes] = *f.disk->files.begin();
  const size_t padding = sizeof(Token) * 40 + 96;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i >= padding && i < (padding + 63) / 64 * 64) continue;  // means nothing
    for (const bool while_open : {false, true}) {
      f.disk->files[path] = bytes;
      f.reopen();
      f.disk->files[path][i] ^= 0x40;
      if (!while_open) f.reopen();
      CHECK_EQ(f.match(tokens), 0);
      CHECK_EQ(f.store->stats().num_damaged, 1);
      f.store->flush();
      CHECK(f.disk->files.empty());
    }
  }
}

TEST(kv_store, truncated_emptied_foreign_and_swapped_files_are_misses) {
  Fixture f;
  const Tokens a = tokens_of(1, 300), b = tokens_of(2, 300);
  f.save(a);
  f.save(b);
  f.store->flush();
  const auto files = f.disk->files;
  for (const auto& [path, bytes] : files) {
    for (const size_t size : {size_t{0}, size_t{50}, size_t{96}, bytes.size() - 1}) {
      f.disk->files = files;
      f.disk->files[path].resize(size);
      f.reopen();
      CHECK(f.match(a) < 300 || f.match(b) < 300);
      CHECK_EQ(f.store->stats().num_damaged, 1);
    }
    f.disk->files = files;
    f.disk->files[path] = files.rbegin()->second;
    f.disk->files["/w/" + kFingerprint.hex() + "/notes.txt"] = {1, 2, 3};
    f.reopen();
    f.match(a);
    f.match(b);
  }
}

TEST(kv_store, a_crash_at_any_write_loses_nothing_acknowledged) {
  for (int crash_at = 0; crash_at < 12; ++crash_at) {
    Fixture f;
    f.disk->writes_until_crash = crash_at;
    std::vector<Tokens> acknowledged;
    for (int i = 0; i < 4; ++i) {
      const Tokens tokens = tokens_of(i, 600);
      f.save(tokens);
      if (f.store->persist(scope_of(), tokens).ok()) acknowledged.push_back(tokens);
    }
    CHECK_EQ(acknowledged.size(), crash_at / 3);
    f.disk->writes_until_crash = -1;
    f.reopen();
    for (const Tokens& tokens : acknowledged) CHECK_EQ(f.match(tokens), 600);
    f.store->flush();
    for (const auto& [path, bytes] : f.disk->files) CHECK(!path.ends_with(".tmp"));
  }
}

TEST(kv_store, a_full_or_read_only_disk_is_said_and_ram_goes_on) {
  for (const bool is_full : {true, false}) {
    Fixture f;
    const Tokens tokens = tokens_of(1, 300);
    if (is_full) f.disk->free_bytes = 1000;
    else f.disk->is_read_only = true;
    f.save(tokens);
    const Status status = f.store->persist(scope_of(), tokens);
    CHECK_EQ(status.code(), is_full ? StatusCode::kDiskFull : StatusCode::kStorageFailed);
    CHECK(status.message().find(is_full ? "no space" : "read-only") != std::string::npos);
    CHECK(f.store->stats().num_write_failures > 0);
    CHECK_EQ(f.match(tokens), 300);
  }
}

TEST(kv_store, on_a_full_disk_what_is_not_pinned_makes_way_for_a_context) {
  Fixture f;
  const Tokens context = tokens_of(1, 300);
  const Tokens cached = tokens_of(2, 600);
  f.store->pin(scope_of(), context);
  f.save(cached);
  f.store->flush();
  f.disk->free_bytes = 100;
  f.save(context);
  CHECK(f.store->persist(scope_of(), context).ok());
  CHECK(f.store->stats().num_disk_evictions > 0);
  f.reopen();
  f.store->pin(scope_of(), context);
  CHECK_EQ(f.match(context), 300);
  f.disk->free_bytes = 100;
  const Tokens another = tokens_of(3, 300);
  f.save(another);
  CHECK(!f.store->persist(scope_of(), another).ok());  // the other one is pinned
}

TEST(kv_store, on_a_full_disk_what_is_not_pinned_makes_way_for_what_is_beside_the_pieces) {
  Fixture f;
  const Tokens context = tokens_of(1, 300);
  f.store->pin(scope_of(), context);
  f.save(context);
  for (int seed = 2; seed < 5; ++seed) f.save(tokens_of(seed, 300));
  f.store->flush();
  const uint64_t before = f.store->stats().disk_bytes;
  f.store->make_disk_room(1000);
  const uint64_t after = f.store->stats().disk_bytes;
  CHECK(after <= before - 1000);
  CHECK(after > before / 2);
  f.store->make_disk_room(before);
  CHECK_EQ(f.store->stats().disk_bytes, f.store->usage(scope_of(), context).disk_bytes);
  CHECK_EQ(f.match(context), 300);
}

TEST(kv_store, on_a_full_disk_a_context_that_ram_cannot_hold_finds_room_too) {
  Fixture f(/*ram=*/6000);  // of the 9,600 bytes that it takes
  const Tokens context = tokens_of(1, 600);
  f.store->pin(scope_of(), context);
  for (int seed = 2; seed < 5; ++seed) f.save(tokens_of(seed, 256));
  f.store->flush();
  f.disk->free_bytes = 100;
  for (const TokenRange range : f.store->missing(scope_of(), context)) {
    f.store->put(scope_of(), context, range, testing::state_of(context, range));
    f.store->flush();
    f.store->flush();
  }
  CHECK(f.store->persist(scope_of(), context).ok());
  CHECK_EQ(f.store->usage(scope_of(), context).num_disk_tokens, 600);
}

TEST(kv_store, ram_gives_way_to_a_lower_bound_and_nothing_on_disk_is_lost) {
  constexpr uint64_t kRam = 1 << 20;
  Fixture f(kRam);
  for (int seed = 0; seed < 40; ++seed) f.save(tokens_of(seed, 300));
  f.store->flush();
  REQUIRE(f.store->ram_bytes() > kRam / 8);
  CHECK_EQ(f.store->least_ram_bytes(), kRam / 8);
  f.store->bound_ram(0);
  CHECK(f.store->ram_bytes() <= kRam / 8);
  CHECK_EQ(f.store->stats().max_ram_bytes, kRam / 8);
  for (int seed = 0; seed < 40; ++seed) CHECK_EQ(f.match(tokens_of(seed, 300)), 300);
  CHECK(f.store->ram_bytes() <= kRam / 8);
  f.store->bound_ram(10 * kRam);
  CHECK_EQ(f.store->stats().max_ram_bytes, kRam);
}

TEST(kv_store, the_least_recently_used_goes_first_and_the_deepest_of_a_chain) {
  const std::vector<EvictionCandidate> candidates = {
      {10, 5, 256}, {10, 5, 512}, {10, 1, 256}, {10, 9, 100}};
  CHECK_EQ(pick_victims(candidates, 0), std::vector<size_t>{});
  CHECK_EQ(pick_victims(candidates, 11), (std::vector<size_t>{2, 1}));
  CHECK_EQ(pick_victims(candidates, 1000), (std::vector<size_t>{2, 1, 0, 3}));
}

TEST(kv_store, what_leaves_ram_leaves_others_what_they_share_and_is_counted_once) {
  Fixture f;
  const Tokens first = tokens_of(1, 600);
  Tokens second = first;
  second.back() += 1;
  f.save(first);
  f.save(second);
  const std::vector<Tokens> others = {second};
  CHECK(f.store->drop_from_ram(scope_of(), first, others).ok());
  CHECK_EQ(f.store->usage(scope_of(), second).num_ram_tokens, 600);
  CHECK_EQ(f.store->usage(scope_of(), first).num_ram_tokens, 512);
  const std::vector<ScopedTokens> both = {{scope_of(), first}, {scope_of(), second}};
  CHECK_EQ(f.store->usage(both).num_stored_tokens, 512 + 88 + 88);
}

TEST(kv_store, what_is_shared_counts_for_the_warmest_of_those_that_share_it) {
  Fixture f;
  const Tokens first = tokens_of(1, 600);
  Tokens second = first;
  second.back() += 1;
  f.save(first);
  f.save(second);
  f.store->flush();  // what is on disk stays the same from here
  const auto usage = [&](Tier of_first, Tier of_second) {
    return f.store->usage(std::vector<ScopedTokens>{{scope_of(), first, of_first},
                                                    {scope_of(), second, of_second}});
  };
  const PrefixUsage all = usage(Tier::kHot, Tier::kHot);
  CHECK_EQ(all.num_ram_tokens, 512 + 88 + 88);
  CHECK_EQ(usage(Tier::kCold, Tier::kCold).num_ram_tokens, 0);
  CHECK_EQ(usage(Tier::kCold, Tier::kCold).disk_bytes, all.disk_bytes);
  for (const auto& mixed : {usage(Tier::kCold, Tier::kWarm), usage(Tier::kWarm, Tier::kCold)}) {
    CHECK_EQ(mixed.num_ram_tokens, 600);
    CHECK_EQ(mixed.state_bytes, 0u);
  }
  CHECK_EQ(usage(Tier::kHot, Tier::kCold).state_bytes, usage(Tier::kHot, Tier::kCold).ram_bytes);
}

TEST(kv_store, a_folder_that_was_removed_is_made_again) {
  Fixture f;
  const Tokens tokens = tokens_of(1, 300);
  f.disk->has_folder = false;
  f.save(tokens);
  CHECK(f.store->persist(scope_of(), tokens).ok());
}

}  // namespace
}  // namespace snapllm
