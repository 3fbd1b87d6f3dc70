#include "embedding_service.h"

#include <chrono>
#include <cmath>
#include <mutex>
#include <string>

namespace snapllm {
namespace {

Status check_inputs(const EmbedRequest& request, const ModelInfo& info, const Embedder& embedder) {
  if (request.inputs.empty()) return {StatusCode::kInvalidRequest, "there is nothing to embed"};
  if (request.dimensions < 0 || request.dimensions > info.embedding_size) {
    return {StatusCode::kInvalidRequest, "dimensions must be between 1 and the model's " +
                                             std::to_string(info.embedding_size)};
  }
  for (size_t i = 0; i < request.inputs.size(); ++i) {
    const auto& input = request.inputs[i];
    const std::string name = "input " + std::to_string(i);
    if (input.empty()) return {StatusCode::kInvalidRequest, name + " is empty"};
    if (input.size() > static_cast<size_t>(embedder.max_input_tokens())) {
      return {StatusCode::kContextLengthExceeded,
              name + " has " + std::to_string(input.size()) + " tokens, but model " + info.id +
                  " embeds at most " + std::to_string(embedder.max_input_tokens()) + " together"};
    }
    for (const Token token : input) {
      if (token < 0 || token >= info.vocab_size) {
        return {StatusCode::kInvalidRequest, name + ": token " + std::to_string(token) +
                                                 " is not in the model's vocabulary"};
      }
    }
  }
  return embedder.check(request.pooling);
}

// Counts a job's inputs: waiting at first, running from start() on, and failed at its end
// unless finish() was called.
class CountedJob {
 public:
  using Clock = std::chrono::steady_clock;

  CountedJob(EmbedCounts& counts, const EmbedRequest& request, Clock::time_point submitted_at)
      : counts_(counts), num_inputs_(static_cast<int32_t>(request.inputs.size())),
        submitted_at_(submitted_at) {
    for (const auto& input : request.inputs) num_tokens_ += input.size();
    counts_.update([&](ModelStats& stats) {
      stats.num_requests += request.inputs.size();
      stats.num_waiting += num_inputs_;
    });
  }
  ~CountedJob() {
    const auto count = static_cast<uint64_t>(num_inputs_);
    counts_.update([&](ModelStats& stats) {
      (is_running_ ? stats.num_running : stats.num_waiting) -= num_inputs_;
      stats.num_finished += count;
      if (is_finished_) stats.num_embedded_tokens += num_tokens_;
      else stats.num_failed += count;
    });
    counts_.note_ended();
  }
  CountedJob(const CountedJob&) = delete;
  CountedJob& operator=(const CountedJob&) = delete;

  void start() {
    is_running_ = true;
    const double ms =
        std::chrono::duration<double, std::milli>(Clock::now() - submitted_at_).count();
    counts_.update([&](ModelStats& stats) {
      stats.num_waiting -= num_inputs_;
      stats.num_running += num_inputs_;
      for (int32_t i = 0; i < num_inputs_; ++i) stats.queue_time.add(ms);
    });
  }
  void finish() { is_finished_ = true; }

 private:
  EmbedCounts& counts_;
  const int32_t num_inputs_;
  const Clock::time_point submitted_at_;
  uint64_t num_tokens_ = 0;
  bool is_running_ = false;
  bool is_finished_ = false;
};

}  // namespace

Embedding normalized(Embedding vector, int32_t dimensions) {
  if (dimensions > 0) vector.resize(static_cast<size_t>(dimensions));
  double square = 0.0;
  for (const float value : vector) square += static_cast<double>(value) * value;
  if (square <= 0.0) return vector;
  const double scale = 1.0 / std::sqrt(square);
  for (float& value : vector) value = static_cast<float>(value * scale);
  return vector;
}

Result<std::vector<Embedding>> embed(ComputeThread& compute, const TextModel& model,
                                     Scheduler& scheduler, const EmbedRequest& request) {
  const auto submitted_at = CountedJob::Clock::now();
  Result<Embedder*> found(nullptr);
  compute.run([&] {
    const Status& end = scheduler.end_status();
    found = end.ok() ? scheduler.context().embedder() : Result<Embedder*>(end);
  });
  if (!found.ok()) return found.status();
  Embedder& embedder = *found.value();
  if (Status status = check_inputs(request, model.info(), embedder); !status.ok()) return status;

  CountedJob counted(scheduler.embed_counts(), request, submitted_at);
  std::lock_guard turn(embedder.turn());
  counted.start();
  EmbedJob job{request.inputs, request.pooling, {}, 0, {}};
  Status status;
  while (status.ok() && !job.is_done()) {
    compute.run([&] {
      status = scheduler.end_status();
      if (status.ok()) status = embedder.step(job);
    });
  }
  if (!status.ok()) return status;
  for (Embedding& vector : job.vectors) {
    vector = normalized(std::move(vector), request.dimensions);
  }
  counted.finish();
  return std::move(job.vectors);
}

}  // namespace snapllm
