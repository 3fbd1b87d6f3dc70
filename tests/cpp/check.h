// The test harness: TEST registers, CHECK and CHECK_EQ note a failure and go on,
// REQUIRE ends the test.
#pragma once

#include <atomic>
#include <chrono>
#include <concepts>
#include <iomanip>
#include <iostream>
#include <ranges>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace snapllm::testing {

struct TestCase {
  std::string suite;
  std::string name;
  void (*function)();
};

inline std::vector<TestCase>& test_cases() {
  static std::vector<TestCase> cases;
  return cases;
}

inline std::atomic<int>& num_failures() {
  static std::atomic<int> count{0};
  return count;
}

struct Registration {
  Registration(const char* suite, const char* name, void (*function)()) {
    test_cases().push_back({suite, name, function});
  }
};

struct TestAborted {};
struct TestSkipped {
  std::string reason;
};

inline void note_failure(const char* file, int line, const std::string& what) {
  std::cerr << file << ':' << line << ": " << what << '\n';
  ++num_failures();
}

template <typename T>
concept Number = std::integral<T> && !std::same_as<T, bool> && !std::same_as<T, char>;

template <typename T>
void print(std::ostream& out, const T& value) {
  if constexpr (std::convertible_to<T, std::string_view>) {
    out << '"';
    for (const char c : std::string_view(value)) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte >= 0x20 && byte < 0x7F) out << c;
      else out << "\\x" << std::hex << std::setw(2) << std::setfill('0') << +byte << std::dec;
    }
    out << '"';
  } else if constexpr (std::is_enum_v<T>) {
    out << "enum " << static_cast<int64_t>(value);
  } else if constexpr (std::ranges::range<T>) {
    out << '[';
    for (const auto& element : value) print(out << ' ', element);
    out << " ]";
  } else {
    out << std::boolalpha << value;
  }
}

template <typename A, typename B>
bool equal(const A& a, const B& b) {
  if constexpr (Number<A> && Number<B>) return std::cmp_equal(a, b);
  else return a == b;
}

template <typename A, typename B>
void check_equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (equal(a, b)) return;
  std::ostringstream message;
  print(message << text << ": ", a);
  print(message << " is not ", b);
  note_failure(file, line, message.str());
}

// A moment no passing test reaches.
inline std::chrono::steady_clock::time_point far_deadline() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(20);
}

// Runs all tests or `--suite NAME`; returns the process's exit code, which is kSkipped where
// each of them was.
int run_tests(int argc, char** argv);
constexpr int kSkipped = 77;  // as CMakeLists.txt tells ctest

}  // namespace snapllm::testing

#define TEST(suite, name)                                                               \
  static void suite##_##name();                                                         \
  static const ::snapllm::testing::Registration registration_##suite##_##name(          \
      #suite, #name, suite##_##name);                                                   \
  static void suite##_##name()

#define CHECK(condition)                                                                \
  do {                                                                                  \
    if (!(condition)) {                                                                 \
      ::snapllm::testing::note_failure(__FILE__, __LINE__, "failed: " #condition);      \
    }                                                                                   \
  } while (false)

#define REQUIRE(condition)                                                              \
  do {                                                                                  \
    if (!(condition)) {                                                                 \
      ::snapllm::testing::note_failure(__FILE__, __LINE__, "failed: " #condition);      \
      throw ::snapllm::testing::TestAborted();                                          \
    }                                                                                   \
  } while (false)

// Ends the test, which counts neither as passed nor as failed.
#define SKIP(reason) throw ::snapllm::testing::TestSkipped{reason}

#define CHECK_EQ(a, b) \
  ::snapllm::testing::check_equal((a), (b), #a " == " #b, __FILE__, __LINE__)
