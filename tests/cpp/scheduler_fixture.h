// A scheduler over the fake backend, stepped by hand.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "fake_backend.h"
#include "scheduler/scheduler.h"

namespace snapllm::testing {

// All that a request was answered so far.
struct Answer {
  std::string text;
  std::vector<Token> tokens;
  int num_outputs = 0;
  RequestOutput last;
};

struct SchedulerFixture {
  explicit SchedulerFixture(ModelInfo info = fake_info(), int32_t max_queued = 64,
                            int32_t batch_tokens = 2048)
      : model(std::make_shared<FakeTextModel>(std::move(info), batch_tokens,
                                              std::min(batch_tokens, 512))),
        context(new FakeTextContext(model)),
        scheduler({model, std::unique_ptr<TextContext>(context)}, max_queued) {}

  Status submit(uint64_t id, const std::string& prompt, int32_t max_tokens = 100,
                std::vector<std::string> stop = {},
                std::shared_ptr<const ChatPrompt> chat = nullptr) {
    return scheduler.submit(make_sequence(id, prompt, max_tokens, outputs, std::move(stop), chat));
  }

  void collect() {
    for (RequestOutput& output : outputs->drain()) {
      Answer& answer = answers[output.request_id];
      CHECK(!answer.last.finished());
      answer.text += output.text;
      answer.tokens.insert(answer.tokens.end(), output.tokens.begin(), output.tokens.end());
      ++answer.num_outputs;
      answer.last = std::move(output);
    }
  }

  void step() {
    scheduler.step({});
    collect();
    const int32_t reserved = scheduler.stats().num_kv_cells_used;
    CHECK(reserved <= model->info().kv_cells);
    CHECK(context->num_cells() <= static_cast<size_t>(reserved));
  }

  void run() {
    for (int i = 0; scheduler.has_work(); ++i) {
      REQUIRE(i < 10'000);
      step();
    }
    CHECK_EQ(context->num_cells(), 0);
    CHECK_EQ(scheduler.stats().num_kv_cells_used, 0);
  }

  FinishReason finish_reason(uint64_t id) { return answers[id].last.finish_reason; }

  const std::shared_ptr<OutputQueue> outputs = std::make_shared<OutputQueue>();
  const std::shared_ptr<FakeTextModel> model;
  FakeTextContext* const context;  // owned by the scheduler
  Scheduler scheduler;
  std::map<uint64_t, Answer> answers;
};

}  // namespace snapllm::testing
