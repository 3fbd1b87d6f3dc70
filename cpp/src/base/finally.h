// What is done at the end of a block, however that comes.
#pragma once

#include <utility>

namespace snapllm {

template <typename Function>
class [[nodiscard]] Finally {
 public:
  explicit Finally(Function function) : function_(std::move(function)) {}
  ~Finally() { function_(); }
  Finally(const Finally&) = delete;
  Finally& operator=(const Finally&) = delete;

 private:
  const Function function_;
};

}  // namespace snapllm
