#include "base/machine.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "check.h"

namespace snapllm {
namespace {

constexpr uint64_t kAny = std::numeric_limits<uint64_t>::max();

// A folder of control groups.
class Groups {
 public:
  Groups() {
    std::string pattern = (std::filesystem::temp_directory_path() / "snapllm_XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    root_ = pattern;
  }
  ~Groups() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  // To a process with that /proc/self/cgroup.
  uint64_t available(const std::string& membership) const {
    return groups_available_bytes(membership, root_.string());
  }

 private:
  std::filesystem::path root_;
};

TEST(machine, a_group_without_a_limit_bounds_nothing) {
  const Groups groups;
  CHECK_EQ(groups.available("0::/\n"), kAny);
  groups.write("memory.max", "max\n");
  groups.write("memory.current", "500\n");
  CHECK_EQ(groups.available("0::/\n"), kAny);
  CHECK_EQ(groups.available(""), kAny);
  CHECK_EQ(groups.available("no group\n1:\n"), kAny);
}

TEST(machine, what_a_group_can_do_without_of_files_is_not_taken) {
  const Groups groups;
  groups.write("memory.max", "1000\n");
  groups.write("memory.current", "900\n");
  CHECK_EQ(groups.available("0::/\n"), 100);
  groups.write("memory.stat", "anon 300\nfile 600\nactive_file 100\ninactive_file 500\n");
  CHECK_EQ(groups.available("0::/\n"), 600);
  groups.write("memory.current", "1600\n");
  CHECK_EQ(groups.available("0::/\n"), 0);
  CHECK(available_memory_bytes() > 0);
}

TEST(machine, the_limits_of_a_service_and_of_all_above_it_hold) {
  const Groups groups;
  const std::string service = "0::/system.slice/snapllm.service\n";
  groups.write("system.slice/snapllm.service/memory.max", "1000\n");
  groups.write("system.slice/snapllm.service/memory.current", "100\n");
  CHECK_EQ(groups.available(service), 900);
  CHECK_EQ(groups.available("0::/system.slice\n"), kAny);
  groups.write("system.slice/memory.max", "2000\n");
  groups.write("system.slice/memory.current", "1700\n");
  CHECK_EQ(groups.available(service), 300);
  groups.write("system.slice/memory.max", "max\n");
  CHECK_EQ(groups.available(service), 900);
  // A container whose own group is what it sees as the root, by a path from outside.
  groups.write("memory.max", "800\n");
  groups.write("memory.current", "100\n");
  CHECK_EQ(groups.available("0::/docker/1234\n"), 700);
}

TEST(machine, the_limits_of_groups_of_version_1_hold) {
  const Groups groups;
  const std::string membership =
      "9:name=systemd:/\n5:cpu,memory:/batch/job\n4:memory_of_none:/other\n0::/\n";
  CHECK_EQ(groups.available(membership), kAny);
  groups.write("memory/batch/job/memory.limit_in_bytes", "1000\n");
  groups.write("memory/batch/job/memory.usage_in_bytes", "900\n");
  groups.write("memory/batch/job/memory.stat", "inactive_file 1\ntotal_inactive_file 200\n");
  CHECK_EQ(groups.available(membership), 300);
  groups.write("memory/memory.limit_in_bytes", "9223372036854771712\n");
  groups.write("memory/memory.usage_in_bytes", "5000\n");
  CHECK_EQ(groups.available(membership), 300);
}

}  // namespace
}  // namespace snapllm
