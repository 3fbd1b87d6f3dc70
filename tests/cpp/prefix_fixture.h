// A scheduler with a store over the fake backend, for what it reuses of earlier prompts.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "fake_backend.h"
#include "fake_file_env.h"
#include "scheduler/scheduler.h"

namespace snapllm::testing {

using Tokens = std::vector<Token>;

inline ModelInfo info_with_hot(int32_t num_hot, const std::string& kind = "blocks") {
  ModelInfo info = fake_info(/*kv_cells=*/2048, /*max_sequences=*/4);
  info.num_hot_sequences = num_hot;
  info.max_hot_tokens = info.max_foreign_tokens = 1024;
  info.kv_kind = kind;
  return info;
}

inline std::shared_ptr<KvStore> make_store() {
  return std::make_shared<KvStore>(KvStoreOptions{1 << 24, 0, ""},
                                   std::make_unique<FakeFileEnv>(std::make_shared<FakeDisk>()));
}

struct PrefixFixture {
  explicit PrefixFixture(ModelInfo info, bool with_store = true)
      : PrefixFixture(std::move(info), with_store ? make_store() : nullptr) {}
  PrefixFixture(ModelInfo info, std::shared_ptr<KvStore> kept)
      : model(std::make_shared<FakeTextModel>(std::move(info), 256, 128)),
        context(new FakeTextContext(model)),
        store(std::move(kept)),
        scheduler({model, std::unique_ptr<TextContext>(context)}, 64, store) {}

  void submit(uint64_t id, const std::string& prompt, const std::string& answer,
              int32_t max_tokens = 50, PrefixSource source = {}) {
    context->script(prompt, to_tokens(answer));
    expected[id] = answer.substr(0, static_cast<size_t>(max_tokens));
    REQUIRE(scheduler.submit(make_sequence(id, prompt, max_tokens, outputs, {}, nullptr, 0,
                                           std::move(source))).ok());
  }

  void run() {
    for (int i = 0; scheduler.has_work(); ++i) {
      REQUIRE(i < 10'000);
      scheduler.step({});
    }
    for (RequestOutput& output : outputs->drain()) {
      texts[output.request_id] += output.text;
      if (output.finished()) last[output.request_id] = std::move(output);
    }
    for (const auto& [id, answer] : expected) CHECK_EQ(texts[id], answer);
    CHECK_EQ(scheduler.stats().num_running, 0);
    CHECK_EQ(scheduler.stats().num_kv_cells_used, scheduler.stats().num_hot_tokens);
    const ModelInfo& info = model->info();
    CHECK(scheduler.stats().num_hot_tokens <=
          std::max(info.max_hot_tokens, info.max_foreign_tokens));
  }

  // Makes a text that is stored a pinned hot prefix.
  Status promote(const std::string& text) {
    const Tokens tokens = to_tokens(text);
    const StoreScope scope{model->fingerprint(), {}, KvKind::kBlocks};
    const auto num_tokens = static_cast<int32_t>(tokens.size());
    return scheduler.promote({}, tokens, store->match(scope, tokens, num_tokens, Reading::kAll));
  }
  bool is_hot(const std::string& text) const { return scheduler.is_hot({}, to_tokens(text)); }

  int32_t cached(uint64_t id) { return last[id].num_cached_tokens; }

  const std::shared_ptr<OutputQueue> outputs = std::make_shared<OutputQueue>();
  const std::shared_ptr<FakeTextModel> model;
  FakeTextContext* const context;
  const std::shared_ptr<KvStore> store;
  Scheduler scheduler;
  std::map<uint64_t, std::string> expected, texts;
  std::map<uint64_t, RequestOutput> last;
};

const std::string kHead(300, 'h');

}  // namespace snapllm::testing
