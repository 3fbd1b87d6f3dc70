// Status and Result<T>: how everything below the bindings reports failure.
// Exceptions are caught at the backend boundary and thrown again only by the
// bindings.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace snapllm {

enum class StatusCode {
  kOk,
  kInvalidRequest,         // the caller's arguments are wrong
  kModelNotFound,          // no model is loaded under that id
  kFileNotFound,           // the model file does not exist or cannot be read
  kFileReplaced,           // the model in memory is of a file that another one has replaced
  kInvalidModel,           // the file is not a model this build can load
  kOutOfMemory,            // the model or its KV memory does not fit
  kContextLengthExceeded,  // the prompt does not fit the model's context
  kQueueFull,              // the model's request queue is at its bound
  kGenerationFailed,       // the model failed while computing
  kClosed,                 // the engine or the model is shutting down
  kStorageFailed,          // the workspace cannot be read or written
  kDiskFull,               // the workspace has no room for a file
  kFileDamaged,            // a file of the workspace is damaged, foreign or gone: of no use
};

// The code's name in the API, for example "model_not_found".
std::string_view status_code_name(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

// A value or the Status that explains why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}  // NOLINT: implicit by design
  Result(Status status) : state_(std::move(status)) {}  // NOLINT: implicit by design

  bool ok() const { return std::holds_alternative<T>(state_); }
  // REQUIRES: !ok()
  const Status& status() const { return std::get<Status>(state_); }
  // REQUIRES: ok()
  T& value() & { return std::get<T>(state_); }
  const T& value() const& { return std::get<T>(state_); }
  T&& value() && { return std::get<T>(std::move(state_)); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace snapllm
