#include "prompt_check.h"
#include "scheduler/scheduler.h"

#include "check.h"
#include "fake_backend.h"
#include "fake_file_env.h"

namespace snapllm {
namespace {

using testing::add_image;
using testing::fake_info;
using testing::FakeMediaChunk;
using testing::FakeSampler;
using testing::FakeTextContext;
using testing::FakeTextModel;
using testing::to_tokens;
using Image = std::shared_ptr<FakeMediaChunk>;
using Tokens = std::vector<Token>;

Image make_image(int32_t id, int32_t num_tokens = 20, int32_t num_positions = 20) {
  return std::make_shared<FakeMediaChunk>(id, num_tokens, num_positions);
}

void add_text(GenerateRequest& request, const std::string& text) {
  const auto tokens = to_tokens(text);
  request.prompt.insert(request.prompt.end(), tokens.begin(), tokens.end());
}

struct Fixture {
  explicit Fixture(int32_t num_hot = 4, const std::string& kind = "blocks")
      : model(make_model(num_hot, kind)),
        context(new FakeTextContext(model)),
        scheduler({model, std::unique_ptr<TextContext>(context)}, 64,
                  std::make_shared<KvStore>(KvStoreOptions{1 << 24, 0, ""},
                                            std::make_unique<testing::FakeFileEnv>(
                                                std::make_shared<testing::FakeDisk>()))) {}

  static std::shared_ptr<FakeTextModel> make_model(int32_t num_hot, const std::string& kind) {
    ModelInfo info = fake_info(/*kv_cells=*/4096, /*max_sequences=*/4);
    info.num_hot_sequences = num_hot;
    info.max_hot_tokens = info.max_foreign_tokens = 2048;
    info.kv_kind = kind;
    return std::make_shared<FakeTextModel>(std::move(info), 256, 128);
  }

  void submit(uint64_t id, const std::string& before, const Image& image, const std::string& after,
              const std::string& answer) {
    GenerateRequest request;
    add_text(request, before);
    if (image != nullptr) add_image(request, image);
    add_text(request, after);
    submit(id, std::move(request), answer);
  }

  void submit(uint64_t id, GenerateRequest request, const std::string& answer) {
    context->script(request.prompt, to_tokens(answer));
    request.max_tokens = 64;
    expected[id] = answer;
    REQUIRE(scheduler.submit(std::make_unique<Sequence>(id, std::move(request),
                                                        std::make_unique<FakeSampler>(1), outputs))
                .ok());
  }

  void step() {
    scheduler.step({});
    for (RequestOutput& output : outputs->drain()) {
      texts[output.request_id] += output.text;
      if (output.finished()) last[output.request_id] = std::move(output);
    }
  }

  void run() {
    for (int i = 0; scheduler.has_work(); ++i) {
      REQUIRE(i < 10'000);
      step();
    }
    for (const auto& [id, answer] : expected) CHECK_EQ(texts[id], answer);
  }

  int32_t cached(uint64_t id) { return last[id].num_cached_tokens; }

  const std::shared_ptr<OutputQueue> outputs = std::make_shared<OutputQueue>();
  const std::shared_ptr<FakeTextModel> model;
  FakeTextContext* const context;
  Scheduler scheduler;
  std::map<uint64_t, std::string> expected, texts;
  std::map<uint64_t, RequestOutput> last;
};

const std::string kHead(250, 'h');

TEST(media, an_image_is_computed_in_its_place) {
  Fixture f;
  f.submit(1, kHead, make_image(1), "what is it?", "a cat");
  f.run();
  CHECK_EQ(f.context->num_encodes(), 1);
  CHECK_EQ(f.last[1].num_prompt_tokens, 250 + 20 + 11);
  // Where the prompt begins with one, and with several in a row.
  GenerateRequest request;
  add_image(request, make_image(2));
  add_image(request, make_image(3));
  add_text(request, "and?");
  f.submit(2, std::move(request), "two dogs");
  f.run();
  CHECK_EQ(f.context->num_encodes(), 3);
}

TEST(media, the_same_image_is_neither_encoded_nor_computed_again) {
  for (const int32_t num_hot : {0, 4}) {
    Fixture f(num_hot);
    const Image image = make_image(1);
    f.submit(1, kHead, image, "what is it?", "a cat");
    f.run();
    f.submit(2, kHead, image, "which colour?", "black");
    f.run();
    CHECK_EQ(f.context->num_encodes(), 1);
    CHECK(f.cached(2) >= 270);
    CHECK_EQ(f.scheduler.stats().num_encoded_media, 1);
  }
}

TEST(media, other_images_in_the_same_place_get_their_own_answers) {
  Fixture f;
  f.submit(1, kHead, make_image(1), "what is it?", "a cat");
  f.submit(2, kHead, make_image(2), "what is it?", "a dog");
  f.submit(3, kHead, nullptr, "what is it?", "no picture");
  f.run();
  f.submit(4, kHead, make_image(3), "what is it?", "a cow");
  f.run();
  CHECK_EQ(f.context->num_encodes(), 3);
  // The text before the image is shared.
  CHECK_EQ(f.cached(4), 250);
}

TEST(media, requests_that_come_later_do_not_take_the_turns_of_one_with_many_images) {
  Fixture f;
  GenerateRequest several;
  for (int32_t id = 1; id <= 3; ++id) {
    add_image(several, make_image(id));
    add_text(several, "and");
  }
  f.submit(1, std::move(several), "three");
  // There is always a later one that waits for its image.
  uint64_t next = 2;
  for (int i = 0; i < 60 && f.last.count(1) == 0; ++i) {
    while (next < static_cast<uint64_t>(i) + 4) {
      f.submit(next, "", make_image(static_cast<int32_t>(10 + next)), "?", "x");
      ++next;
    }
    f.step();
  }
  CHECK_EQ(f.last.count(1), 1u);
  f.run();
}

TEST(media, reuse_ends_before_an_image_not_within) {
  for (const int32_t num_hot : {0, 4}) {
    Fixture f(num_hot);
    const Image image = make_image(1);
    f.submit(1, kHead, image, "what is it?", "a cat");
    f.run();
    // As alike as no two images are: the last token only is another.
    const Image other = std::make_shared<FakeMediaChunk>(*image);
    other->tokens.back() -= 2000;
    f.submit(2, kHead, other, "what is it?", "a dog");
    f.run();
    CHECK_EQ(f.cached(2), 250);
  }
}

TEST(media, a_running_prompt_is_forked_before_its_image_or_after) {
  Fixture f(/*num_hot=*/0);
  const Image image = make_image(1, 100, 100);
  f.submit(1, kHead, image, std::string(600, 'a'), "first");
  for (int i = 0; i < 3; ++i) f.step();
  f.submit(2, kHead, image, std::string(600, 'b'), "second");
  f.submit(3, kHead, make_image(2, 100, 100), "c", "third");
  f.run();
  CHECK_EQ(f.context->num_encodes(), 2);
  CHECK_EQ(f.cached(2), 350);
  CHECK_EQ(f.cached(3), 250);
}

TEST(media, positions_go_on_behind_an_image_that_takes_fewer_than_its_tokens) {
  for (const char* kind : {"blocks", "checkpoints"}) {
    Fixture f(0, kind);
    const Image image = make_image(1, 20, 5);
    GenerateRequest request;
    add_text(request, "one ");
    add_image(request, image);
    add_text(request, " two ");
    add_image(request, make_image(2, 30, 6));
    add_text(request, " three");
    f.submit(1, std::move(request), "an answer of some tokens");
    f.run();
  }
}

TEST(media, a_model_whose_state_cannot_be_cut_reuses_whole_ones) {
  Fixture f(0, "checkpoints");
  const Image image = make_image(1);
  f.submit(1, kHead, image, "what is it?", "a cat");
  f.run();
  f.submit(2, kHead, image, "what is it?a cat, and now?", "a dog");
  f.run();
  CHECK_EQ(f.context->num_encodes(), 1);
  CHECK_EQ(f.cached(2), 250 + 20 + 11 + 5);
}

TEST(media, a_failed_encoding_ends_its_request_only) {
  Fixture f;
  f.context->fail_next_encode({StatusCode::kGenerationFailed, "blind"});
  f.submit(1, "a", make_image(1), "b", "never");
  f.submit(2, "c", nullptr, "d", "fine");
  f.expected.erase(1);
  f.run();
  CHECK_EQ(f.last[1].finish_reason, FinishReason::kError);
  CHECK_EQ(f.last[1].error.code(), StatusCode::kGenerationFailed);
  f.submit(3, "a", make_image(1), "b", "now");
  f.run();
}

TEST(media, text_goes_on_while_images_are_encoded) {
  Fixture f;
  f.submit(1, "tell me", nullptr, "!", std::string(40, 't'));
  while (f.texts[1].empty()) f.step();
  for (uint64_t id = 2; id <= 4; ++id) {
    f.submit(id, "see", make_image(static_cast<int32_t>(id)), "?", "seen");
  }
  // A piece of media a step: three encoded, three computed.
  for (int i = 0; i < 6; ++i) {
    const size_t before = f.texts[1].size();
    f.step();
    CHECK_EQ(f.texts[1].size(), before + 1);
  }
  CHECK_EQ(f.context->num_encodes(), 3);
  f.run();
}

TEST(media, images_that_have_no_room_side_by_side_are_computed_one_after_the_other) {
  Fixture f;
  f.context->keep_encoded(1);
  for (uint64_t id = 1; id <= 3; ++id) {
    f.submit(id, "see", make_image(static_cast<int32_t>(id)), "?", "seen");
  }
  f.run();
  CHECK_EQ(f.context->num_encodes(), 3);
}

TEST(media, a_prompt_that_shows_what_is_not_there_is_refused) {
  ModelInfo info = fake_info();
  info.has_vision = true;
  GenerateRequest good;
  add_text(good, "see ");
  add_image(good, make_image(1));
  add_text(good, "?");
  CHECK(check_prompt(good, info).ok());
  const auto is_refused = [&](const GenerateRequest& request) {
    return check_prompt(request, info).code() == StatusCode::kInvalidRequest;
  };
  GenerateRequest bad = good;
  bad.media.clear();
  CHECK(is_refused(bad));
  bad = good;
  bad.prompt[6] = 1;
  CHECK(is_refused(bad));
  bad = good;
  bad.prompt.back() = -5;
  CHECK(is_refused(bad));
  bad = good;
  bad.prompt.pop_back();
  CHECK(is_refused(bad));
  bad.prefill_only = true;
  CHECK(check_prompt(bad, info).ok());
  bad = good;
  bad.media[0].begin = 1000;
  CHECK(is_refused(bad));
  bad = good;
  bad.media.push_back(bad.media[0]);
  CHECK(is_refused(bad));
  info.has_vision = false;
  CHECK(is_refused(good));
}

TEST(media, what_could_not_be_restored_whole_ends_before_an_image_not_within) {
  for (const int num_restored : {0, 1}) {
    for (const int32_t num_hot : {0, 4}) {
      Fixture f(num_hot);
      const Image image = make_image(1, 300, 300);  // over the end of the first block, to the third
      const std::string before(250, 'h');
      const std::string after(200, 't');
      f.submit(1, before, image, after + "other", "first");
      f.run();
      const std::string more = after + std::string(300, 'x');
      f.submit(2, before, image, more, "second");
      f.run();
      Tokens all = to_tokens(before);
      all.insert(all.end(), image->tokens.begin(), image->tokens.end());
      const Tokens text = to_tokens(more);
      all.insert(all.end(), text.begin(), text.end());
      f.scheduler.demote({}, all, {});
      f.context->fail_restore_after(num_restored);
      f.submit(3, before, image, more + "second and", "third");
      f.run();
    }
  }
}

}  // namespace
}  // namespace snapllm
