#include "scheduler/admission.h"

#include <vector>

#include "check.h"

namespace snapllm {
namespace {

TEST(admission, admits_while_cells_and_sequences_last) {
  const std::vector<int32_t> needed = {10, 20, 30};
  CHECK_EQ(num_admissible(needed, 60, 3), 3);
  CHECK_EQ(num_admissible(needed, 59, 3), 2);
  CHECK_EQ(num_admissible(needed, 60, 2), 2);
  CHECK_EQ(num_admissible(needed, 9, 3), 0);
  CHECK_EQ(num_admissible(needed, 60, 0), 0);
}

TEST(admission, nobody_overtakes_a_request_that_waits_for_room) {
  const std::vector<int32_t> needed = {100, 1, 1};
  CHECK_EQ(num_admissible(needed, 50, 8), 0);
}

TEST(admission, nothing_waits_nothing_starts) { CHECK_EQ(num_admissible({}, 100, 8), 0); }

}  // namespace
}  // namespace snapllm
