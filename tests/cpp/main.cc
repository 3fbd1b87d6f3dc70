#include <unistd.h>

#include <exception>

#include "check.h"

namespace snapllm::testing {
namespace {

// Returns whether it ran: false where it was skipped.
bool run_test(const TestCase& test) {
  std::cerr << test.suite << '.' << test.name << '\n';  // names the one that hangs
  const int before = num_failures();
  try {
    test.function();
  } catch (const TestSkipped& skipped) {
    std::cerr << "SKIPPED: " << skipped.reason << '\n';
    return false;
  } catch (const TestAborted&) {
  } catch (const std::exception& e) {
    note_failure(test.suite.c_str(), 0, std::string("exception: ") + e.what());
  }
  if (num_failures() != before) std::cerr << "FAILED\n";
  return true;
}

}  // namespace

int run_tests(int argc, char** argv) {
  const bool one_suite = argc == 3 && std::string_view(argv[1]) == "--suite";
  if (argc != 1 && !one_suite) {
    std::cerr << "usage: " << argv[0] << " [--suite NAME]\n";
    return 2;
  }
  alarm(50);  // a deadlock ends as a failure
  int num_run = 0;
  int num_skipped = 0;
  for (const TestCase& test : test_cases()) {
    if (one_suite && test.suite != argv[2]) continue;
    ++(run_test(test) ? num_run : num_skipped);
  }
  std::cerr << num_run << " tests, " << num_failures() << " failures, " << num_skipped
            << " skipped\n";
  if (num_run == 0 && num_skipped > 0 && num_failures() == 0) return kSkipped;
  if (num_run == 0) std::cerr << "no such suite\n";
  return num_run > 0 && num_failures() == 0 ? 0 : 1;
}

}  // namespace snapllm::testing

int main(int argc, char** argv) { return snapllm::testing::run_tests(argc, argv); }
