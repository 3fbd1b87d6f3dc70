// A KV store on a disk in memory, and states that tell whose they are.
#pragma once

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "fake_file_env.h"
#include "store/kv_store.h"

namespace snapllm::testing {

using Tokens = std::vector<Token>;

inline const Hash128 kFingerprint{11, 22};

inline StoreScope scope_of(KvKind kind = KvKind::kBlocks, std::string_view name = "") {
  return {kFingerprint, root_key(kFingerprint, kind, name), kind};
}

inline Tokens tokens_of(int seed, int count) {
  std::mt19937 random(static_cast<unsigned>(seed));
  Tokens tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<Token>(random() % 100));
  return tokens;
}

inline Tokens operator+(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// A state that says which tokens it is of.
inline StateBytes state_of(const Tokens& tokens, TokenRange range) {
  StateBytes state;
  for (int32_t i = range.begin; i < range.end; ++i) {
    const Hash128 key = hash128(tokens.data(), static_cast<size_t>(i + 1) * sizeof(Token));
    const auto* bytes = reinterpret_cast<const uint8_t*>(&key);
    state.insert(state.end(), bytes, bytes + sizeof key);
  }
  return state;
}

struct Fixture {
  explicit Fixture(uint64_t ram = 1 << 20, uint64_t disk_bytes = 1 << 20,
                   std::string folder_name = "/w")
      : ram_bytes(ram), disk_bound(disk_bytes), folder(std::move(folder_name)) {
    reopen();
  }

  // A new process on the same disk.
  void reopen() {
    store.reset();
    store = std::make_unique<KvStore>(KvStoreOptions{ram_bytes, disk_bound, folder},
                                      std::make_unique<FakeFileEnv>(disk));
    store->open(kFingerprint);
  }

  void save(const Tokens& tokens, const StoreScope& scope = scope_of()) {
    for (const TokenRange range : store->missing(scope, tokens)) {
      store->put(scope, tokens, range, state_of(tokens, range));
    }
  }

  // The length of the longest prefix; checks that what comes back is its state.
  int32_t match(const Tokens& prompt, const StoreScope& scope = scope_of(),
                Reading reading = Reading::kAll) {
    const auto prefix = store->match(scope, prompt, static_cast<int32_t>(prompt.size()), reading);
    for (const auto& part : prefix.parts) {
      const int32_t end = part.range.begin + part.num_tokens;
      const StateBytes expected = state_of(prompt, {part.range.begin, end});
      REQUIRE(part.state->size() >= expected.size());
      CHECK(std::equal(expected.begin(), expected.end(), part.state->begin()));
    }
    return prefix.num_tokens;
  }

  uint64_t file_bytes() const {
    uint64_t sum = 0;
    for (const auto& [path, bytes] : disk->files) sum += bytes.size();
    return sum;
  }

  const uint64_t ram_bytes;
  const uint64_t disk_bound;
  const std::string folder;  // empty = there is no disk
  const std::shared_ptr<FakeDisk> disk = std::make_shared<FakeDisk>();
  std::unique_ptr<KvStore> store;
};

}  // namespace snapllm::testing
