// A text model without a model: what it answers to a prompt is given as a script,
// and it finds its place in the script by the tokens in its KV memory, so that
// tokens that are lost, doubled, misplaced or mixed up change the answer.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "backend/text_backend.h"
#include "check.h"
#include "scheduler/sequence.h"

namespace snapllm::testing {

// Tokens below 256 are bytes.
constexpr Token kEndToken = 256;
constexpr Token kControlToken = 257;  // "<c>", shown only where it is asked for

inline std::vector<Token> to_tokens(std::string_view text) {
  std::vector<Token> tokens;
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

inline ModelInfo fake_info(int32_t kv_cells = 4096, int32_t max_sequences = 8) {
  ModelInfo info;
  info.id = "fake";
  info.vocab_size = 258;
  info.kv_cells = info.context_size = kv_cells;
  info.max_sequences = max_sequences;
  info.can_stop = true;
  return info;
}

class FakeChatPrompt : public ChatPrompt {
 public:
  explicit FakeChatPrompt(std::vector<std::string> stop) : stop_(std::move(stop)) {}
  const std::string& text() const override { return text_; }
  const std::vector<Token>& tokens() const override { return tokens_; }
  const std::vector<MediaSpan>& media() const override { return media_; }
  const std::vector<std::string>& stop() const override { return stop_; }
  bool supports_thinking() const override { return false; }
  std::unique_ptr<ChatStreamParser> create_parser() const override { return nullptr; }

 private:
  const std::vector<std::string> stop_;
  const std::string text_;
  const std::vector<Token> tokens_;
  const std::vector<MediaSpan> media_;
};

class FakeSampler : public Sampler {
 public:
  explicit FakeSampler(int64_t seed) : seed_(seed) {}
  int64_t seed() const override { return seed_; }

 private:
  const int64_t seed_;
};

class FakeTextModel : public TextModel {
 public:
  FakeTextModel(ModelInfo info, int32_t batch_tokens, int32_t ubatch_tokens)
      : info_(std::move(info)), batch_tokens_(batch_tokens), ubatch_tokens_(ubatch_tokens) {}

  const ModelInfo& info() const override { return info_; }
  int32_t batch_tokens() const override { return batch_tokens_; }
  int32_t ubatch_tokens() const override { return ubatch_tokens_; }
  KvKind kv_kind() const override {
    return info_.kv_kind == "checkpoints" ? KvKind::kCheckpoints : KvKind::kBlocks;
  }
  Hash128 fingerprint() const override { return {1, 2}; }
  bool is_intact() const override { return *intact; }
  bool is_of_its_files() const override { return true; }
  bool is_control(Token token) const override { return token == kControlToken; }
  Result<std::vector<Token>> tokenize(const std::string& text, bool, bool) const override {
    return to_tokens(text);
  }
  Result<std::vector<Token>> tokenize_infill(const std::string&,
                                             const std::string&) const override {
    return Status(StatusCode::kInvalidRequest, "the fake fills nothing in");
  }
  std::string token_bytes(Token token, bool special) const override {
    if (token < 256) return std::string(1, static_cast<char>(token));
    return special ? "<c>" : "";
  }
  bool is_end_of_generation(Token token) const override { return token == kEndToken; }
  Result<std::shared_ptr<const ChatPrompt>> format_chat(const ChatFormatRequest&) const override {
    return Status(StatusCode::kInvalidRequest, "the fake has no chat template");
  }
  bool is_preserved(const ChatPrompt* chat, Token token) const override {
    return chat != nullptr && token == kControlToken;
  }
  Result<std::unique_ptr<Sampler>> create_sampler(const SamplingParams& params, const ChatPrompt*,
                                                  const std::vector<Token>&) const override {
    return std::unique_ptr<Sampler>(std::make_unique<FakeSampler>(params.seed));
  }

  // Whether its files are as they were.
  std::shared_ptr<std::atomic<bool>> intact = std::make_shared<std::atomic<bool>>(true);

 private:
  const ModelInfo info_;
  const int32_t batch_tokens_;
  const int32_t ubatch_tokens_;
};

// An image in a prompt. Its tokens beyond the first `num_positions` take no position.
struct FakeMediaChunk : MediaChunk {
  FakeMediaChunk(int32_t id, int32_t num_tokens, int32_t num_positions) {
    for (int32_t i = 0; i < num_tokens; ++i) {
      tokens.push_back(-2 - 2 * (100 * id + i) - (i >= num_positions ? 1 : 0));
    }
  }
  static bool takes_position(Token token) { return token >= 0 || (-2 - token) % 2 == 0; }
  std::vector<Token> tokens;
};

inline int32_t num_positions(const std::vector<Token>& tokens) {
  return static_cast<int32_t>(std::ranges::count_if(tokens, FakeMediaChunk::takes_position));
}

// Appends the image to the request's prompt.
inline void add_image(GenerateRequest& request, const std::shared_ptr<FakeMediaChunk>& image) {
  MediaSpan span;
  span.begin = static_cast<int32_t>(request.prompt.size());
  span.num_tokens = static_cast<int32_t>(image->tokens.size());
  span.num_positions = num_positions(image->tokens);
  span.chunk = image;
  request.media.push_back(span);
  request.prompt.insert(request.prompt.end(), image->tokens.begin(), image->tokens.end());
}

// The vector of an input is its length and its first token.
class FakeEmbedder : public Embedder {
 public:
  static constexpr int32_t kMaxInput = 8;

  Status check(Pooling pooling) const override {
    if (pooling != Pooling::kLast) return {};
    return {StatusCode::kInvalidRequest, "the fake has no last pooling"};
  }
  int32_t max_input_tokens() const override { return kMaxInput; }
  Status step(EmbedJob& job) override {
    ++num_steps_;
    if (on_step) on_step();
    if (failure_) return *failure_;
    const auto& input = job.inputs.at(job.vectors.size());
    REQUIRE(!input.empty() && input.size() <= kMaxInput);
    // Two tokens a step.
    job.num_computed += 2;
    if (job.num_computed < static_cast<int32_t>(input.size())) return {};
    job.num_computed = 0;
    job.vectors.push_back({static_cast<float>(input.size()), static_cast<float>(input.front())});
    return {};
  }
  void fail(Status status) { failure_ = std::move(status); }
  int num_steps() const { return num_steps_; }
  std::function<void()> on_step;

 private:
  std::optional<Status> failure_;
  int num_steps_ = 0;
};

// Reports every breach of the interface's contract as a failure of the test.
class FakeTextContext : public TextContext {
 public:
  explicit FakeTextContext(std::shared_ptr<const FakeTextModel> model) : model_(std::move(model)) {}

  // What the model answers to the prompt; ends by itself after it.
  void script(const std::string& prompt, std::vector<Token> answer) {
    script(to_tokens(prompt), std::move(answer));
  }
  void script(const std::vector<Token>& prompt, std::vector<Token> answer) {
    scripts_[prompt] = std::move(answer);
  }
  void fail_next_decode(Status status) { decode_failure_ = std::move(status); }
  void fill_next_decode() { cells_full_ = true; }
  void slow_next_decode(std::chrono::milliseconds time) { delay_ = time; }
  // Of more media the embeddings are not kept.
  void keep_encoded(size_t most) { max_encoded_ = most; }
  std::function<void()> on_decode;
  // Fails the sampling of sequences whose KV memory begins with `prompt`.
  void fail_samples_of(const std::string& prompt) { failing_prompt_ = to_tokens(prompt); }

  const std::vector<std::vector<BatchEntry>>& batches() const { return batches_; }
  const std::vector<SequenceId>& cleared() const { return cleared_; }
  // Each once, however many sequences share it.
  size_t num_cells() const {
    std::unordered_set<uint64_t> distinct;
    for (const auto& [id, cells] : cell_ids_) distinct.insert(cells.begin(), cells.end());
    distinct.erase(kNoCell);
    return distinct.size();
  }

  Result<DecodeOutcome> decode(const std::vector<BatchEntry>& batch,
                               const std::atomic<bool>* stop) override {
    batches_.push_back(batch);
    if (on_decode) on_decode();
    if (stop != nullptr) {
      CHECK(model_->info().can_stop);
      for (const BatchEntry& entry : batch) CHECK_EQ(entry.sequence, batch.front().sequence);
      if (*stop) return DecodeOutcome::kStopped;
    }
    CHECK(!batch.empty());
    CHECK(static_cast<int32_t>(batch.size()) <= model_->batch_tokens());
    if (decode_failure_) return *std::exchange(decode_failure_, std::nullopt);
    if (std::exchange(cells_full_, false)) return DecodeOutcome::kCellsFull;
    std::this_thread::sleep_for(std::exchange(delay_, {}));
    outputs_of_.clear();
    for (const BatchEntry& entry : batch) {
      CHECK(entry.sequence >= 0 && entry.sequence < num_sequences());
      std::vector<Token>& tokens = cells_[entry.sequence];
      CHECK_EQ(entry.position, num_positions(tokens));
      CHECK(entry.token >= 0);
      tokens.push_back(entry.token);
      take_cells(entry.sequence);
      // Attention sums in the order in which cells were written.
      CHECK(std::ranges::is_sorted(cell_ids_[entry.sequence]));
      if (entry.output) outputs_of_.push_back({tokens});
      else outputs_of_.emplace_back();
    }
    CHECK(num_cells() <= static_cast<size_t>(model_->info().kv_cells));
    return DecodeOutcome::kDone;
  }

  bool is_encoded(const MediaChunk& chunk) const override {
    return encoded_.count(static_cast<const FakeMediaChunk&>(chunk).tokens) > 0;
  }
  Status encode_media(const MediaChunk& chunk) override {
    if (media_failure_) return *std::exchange(media_failure_, std::nullopt);
    ++num_encodes_;
    if (encoded_.size() == max_encoded_) encoded_.clear();
    encoded_.insert(static_cast<const FakeMediaChunk&>(chunk).tokens);
    return {};
  }
  Result<DecodeOutcome> decode_media(const MediaChunk& chunk, SequenceId sequence,
                                     int32_t position) override {
    CHECK(is_encoded(chunk));
    std::vector<Token>& tokens = cells_[sequence];
    const auto& fake = static_cast<const FakeMediaChunk&>(chunk);
    CHECK_EQ(position, num_positions(tokens));
    tokens.insert(tokens.end(), fake.tokens.begin(), fake.tokens.end());
    take_cells(sequence);
    return DecodeOutcome::kDone;
  }
  void fail_next_encode(Status status) { media_failure_ = std::move(status); }
  int num_encodes() const { return num_encodes_; }

  Result<SampledToken> sample(Sampler&, int32_t batch_index) override {
    const BatchEntry& entry = batches_.back().at(static_cast<size_t>(batch_index));
    CHECK(entry.output);
    // What the sequence held when the entry was computed: after it there may be guesses.
    const std::vector<Token>& cells = outputs_of_.at(static_cast<size_t>(batch_index));
    if (!failing_prompt_.empty() && begins_with(cells, failing_prompt_)) {
      return Status(StatusCode::kGenerationFailed, "the fake was told to fail");
    }
    for (const auto& [prompt, answer] : scripts_) {
      if (!begins_with(cells, prompt)) continue;
      const size_t at = cells.size() - prompt.size();
      if (at > answer.size() || !std::equal(cells.end() - static_cast<ptrdiff_t>(at), cells.end(),
                                            answer.begin())) {
        continue;
      }
      return SampledToken{at < answer.size() ? answer[at] : kEndToken, {}};
    }
    note_failure(__FILE__, __LINE__, "the KV memory fits no script");
    return Status(StatusCode::kGenerationFailed, "the KV memory fits no script");
  }

  // As likely as it has tokens before it.
  Result<TokenLogprobs> logprobs(Token token, int32_t batch_index, int32_t) override {
    CHECK(batches_.back().at(static_cast<size_t>(batch_index)).output);
    const auto& cells = outputs_of_.at(static_cast<size_t>(batch_index));
    return TokenLogprobs{token, model_->token_bytes(token, true), static_cast<float>(cells.size()), {}};
  }

  void truncate_sequence(SequenceId sequence, int32_t position) override {
    CHECK(model_->kv_kind() == KvKind::kBlocks);
    std::vector<Token>& tokens = cells_[sequence];
    REQUIRE(position <= static_cast<int32_t>(tokens.size()));
    tokens.resize(static_cast<size_t>(position));
    cell_ids_[sequence].resize(tokens.size());
  }
  void clear_sequence(SequenceId sequence) override {
    cleared_.push_back(sequence);
    cells_.erase(sequence);
    cell_ids_.erase(sequence);
  }
  void fork_sequence(SequenceId from, SequenceId to, TokenRange range) override {
    std::vector<Token>& copy = cells_[to];
    const auto& source = cells_[from];
    REQUIRE(range.end <= static_cast<int32_t>(source.size()));
    if (model_->kv_kind() == KvKind::kCheckpoints) {
      CHECK_EQ(range.begin, 0);
      CHECK_EQ(range.end, source.size());
    }
    const auto& shared = cell_ids_[from];
    auto& ids = cell_ids_[to];
    const bool fills = range.begin == 0 && std::count(ids.begin(), ids.end(), kNoCell) == range.end;
    if (!fills || ids.empty()) {
      REQUIRE(range.begin == static_cast<int32_t>(copy.size()));
      copy.resize(static_cast<size_t>(range.end));
      ids.resize(static_cast<size_t>(range.end));
    }
    std::copy(shared.begin() + range.begin, shared.begin() + range.end, ids.begin() + range.begin);
    std::copy(source.begin() + range.begin, source.begin() + range.end, copy.begin() + range.begin);
    num_forked_tokens_ += range.end - range.begin;
  }
  // A state is its tokens, so that a wrong one changes the answer.
  Result<StateBytes> save_state(SequenceId sequence, TokenRange range) override {
    const auto& tokens = cells_[sequence];
    REQUIRE(range.end <= static_cast<int32_t>(tokens.size()));
    if (model_->kv_kind() == KvKind::kCheckpoints) CHECK_EQ(range.end, tokens.size());
    const auto* first = reinterpret_cast<const uint8_t*>(tokens.data() + range.begin);
    const auto* last = reinterpret_cast<const uint8_t*>(tokens.data() + range.end);
    return StateBytes(first, last);
  }
  size_t restore_states(SequenceId sequence, std::span<const SavedState> states) override {
    size_t count = 0;
    while (count < states.size() && restore_state(sequence, states[count])) ++count;
    return count;
  }
  // Of the restores from now on one fails, after so many others.
  void fail_restore_after(int num_restores) { restores_until_failure_ = num_restores; }
  int num_forked_tokens() const { return num_forked_tokens_; }
  int num_restores() const { return num_restores_; }
  Result<Embedder*> embedder() override {
    if (embedder_status.ok()) has_embedder_ = true;
    return embedder_status.ok() ? Result<Embedder*>(&embedder_) : Result<Embedder*>(embedder_status);
  }
  uint64_t embedder_bytes() const override { return has_embedder_ ? 0 : embedder_estimate; }
  uint64_t embedder_estimate = 0;  // before it is made
  uint64_t embedder_takes = 0;
  Status embedder_status;
  FakeEmbedder& fake_embedder() { return embedder_; }
  double time_decode(int32_t) override { return 1.0; }
  int32_t num_threads() const override { return num_threads_; }
  void set_num_threads(int32_t num_threads) override { num_threads_ = num_threads; }
  ContextMemory memory() const override {
    return {model_->info().kv_bytes, has_embedder_ ? embedder_takes : 0, 0};
  }

 private:
  bool restore_state(SequenceId sequence, const SavedState& saved) {
    auto& tokens = cells_[sequence];
    if (tokens.empty()) {  // what comes before is forked next
      tokens.resize(static_cast<size_t>(saved.range.begin), -1);
      cell_ids_[sequence].resize(tokens.size(), kNoCell);
    }
    CHECK_EQ(tokens.size(), saved.range.begin);
    if (restores_until_failure_-- == 0) return false;
    // All of it has to find cells, though only its beginning may stay.
    const auto num_held = static_cast<size_t>(saved.range.end - saved.range.begin);
    if (num_cells() + num_held > static_cast<size_t>(model_->info().kv_cells)) return false;
    REQUIRE(saved.bytes->size() == sizeof(Token) * num_held);
    const auto* first = reinterpret_cast<const Token*>(saved.bytes->data());
    tokens.insert(tokens.end(), first, first + saved.num_tokens);
    take_cells(sequence);
    ++num_restores_;
    return true;
  }

  // New cells for the tokens that have none.
  void take_cells(SequenceId sequence) {
    std::vector<uint64_t>& ids = cell_ids_[sequence];
    while (ids.size() < cells_[sequence].size()) ids.push_back(next_cell_id_++);
  }

  static bool begins_with(const std::vector<Token>& tokens, const std::vector<Token>& prefix) {
    return tokens.size() >= prefix.size() &&
           std::equal(prefix.begin(), prefix.end(), tokens.begin());
  }

  int32_t num_sequences() const {
    return model_->info().max_sequences + model_->info().num_hot_sequences;
  }

  const std::shared_ptr<const FakeTextModel> model_;
  FakeEmbedder embedder_;
  std::atomic<bool> has_embedder_{false};
  int32_t num_threads_ = 1;
  int restores_until_failure_ = -1;
  int num_forked_tokens_ = 0;
  int num_restores_ = 0;
  std::map<std::vector<Token>, std::vector<Token>> scripts_;
  std::map<SequenceId, std::vector<Token>> cells_;
  static constexpr uint64_t kNoCell = UINT64_MAX;
  std::map<SequenceId, std::vector<uint64_t>> cell_ids_;  // of each token's cell
  uint64_t next_cell_id_ = 0;
  std::vector<std::vector<BatchEntry>> batches_;
  std::vector<std::vector<Token>> outputs_of_;  // of each entry of the last batch
  std::vector<SequenceId> cleared_;
  std::vector<Token> failing_prompt_;
  std::optional<Status> decode_failure_;
  std::optional<Status> media_failure_;
  std::set<std::vector<Token>> encoded_;  // by content, as chunks come and go
  int num_encodes_ = 0;
  std::chrono::milliseconds delay_{};
  size_t max_encoded_ = 1000;
  bool cells_full_ = false;
};

inline std::unique_ptr<Sequence> make_sequence(uint64_t request_id, const std::string& prompt,
                                               int32_t max_tokens,
                                               std::shared_ptr<OutputQueue> outputs,
                                               std::vector<std::string> stop = {},
                                               std::shared_ptr<const ChatPrompt> chat = nullptr,
                                               int32_t max_draft_tokens = 0,
                                               PrefixSource source = {}) {
  GenerateRequest request;
  request.prompt = to_tokens(prompt);
  request.max_tokens = max_tokens;
  request.stop = std::move(stop);
  request.chat = std::move(chat);
  return std::make_unique<Sequence>(request_id, std::move(request),
                                    std::make_unique<FakeSampler>(1000 + request_id),
                                    std::move(outputs), std::move(source), max_draft_tokens);
}

}  // namespace snapllm::testing
