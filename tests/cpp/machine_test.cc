#include "base/machine.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "check.h"

namespace snapllm {
namespace {

// A control group's folder.
class Group {
 public:
  Group() {
    std::string pattern = (std::filesystem::temp_directory_path() / "snapllm_XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    folder_ = pattern;
  }
  ~Group() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }
  uint64_t available() const { return group_available_bytes(folder_.string()); }

 private:
  std::filesystem::path folder_;
};

TEST(machine, a_group_without_a_limit_bounds_nothing) {
  constexpr uint64_t kAny = std::numeric_limits<uint64_t>::max();
  const Group group;
  CHECK_EQ(group.available(), kAny);
  group.write("memory.max", "max\n");
  group.write("memory.current", "500\n");
  CHECK_EQ(group.available(), kAny);
}

TEST(machine, what_a_group_can_do_without_of_files_is_not_taken) {
  const Group group;
  group.write("memory.max", "1000\n");
  group.write("memory.current", "900\n");
  CHECK_EQ(group.available(), 100);
  group.write("memory.stat", "anon 300\nfile 600\nactive_file 100\ninactive_file 500\n");
  CHECK_EQ(group.available(), 600);
  group.write("memory.current", "1600\n");
  CHECK_EQ(group.available(), 0);
  CHECK(available_memory_bytes() > 0);
}

}  // namespace
}  // namespace snapllm
