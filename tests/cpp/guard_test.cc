#include "base/guard.h"

#include <new>
#include <stdexcept>
#include <system_error>

#include "check.h"

namespace snapllm {
namespace {

Status thrown(auto exception) {
  return guard(StatusCode::kInvalidModel, [&]() -> Status { throw exception; });
}

TEST(guard, memory_that_is_missing_is_not_the_fault_of_a_file) {
  CHECK(thrown(std::bad_alloc()).code() == StatusCode::kOutOfMemory);
  const auto no_thread = std::make_error_code(std::errc::resource_unavailable_try_again);
  CHECK(thrown(std::system_error(no_thread)).code() == StatusCode::kOutOfMemory);
}

TEST(guard, what_else_is_thrown_has_the_code_that_is_given) {
  const auto no_file = std::make_error_code(std::errc::no_such_file_or_directory);
  CHECK(thrown(std::system_error(no_file)).code() == StatusCode::kInvalidModel);
  const Status status = thrown(std::runtime_error("a word"));
  CHECK(status.code() == StatusCode::kInvalidModel && status.message() == "a word");
}

}  // namespace
}  // namespace snapllm
