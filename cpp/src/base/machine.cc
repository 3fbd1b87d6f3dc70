#include "base/machine.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>

namespace snapllm {
namespace {

std::optional<uint64_t> read_number(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;  // missing, or the word "max"
}

// Of a file with a name and a number in each line.
std::optional<uint64_t> read_field(const std::string& path, std::string_view name) {
  std::ifstream file(path);
  std::string key, unit;
  uint64_t value = 0;
  while (file >> key >> value) {
    std::getline(file, unit);
    if (key == name) return value;
  }
  return std::nullopt;
}

uint64_t kernel_available_bytes() {
  const auto kilobytes = read_field("/proc/meminfo", "MemAvailable:");
  return kilobytes ? *kilobytes * 1024 : std::numeric_limits<uint64_t>::max();
}

// The files of a control group that say what its memory is.
struct GroupFiles {
  std::string_view limit, used, reclaimable;
};
constexpr GroupFiles kVersion2{"/memory.max", "/memory.current", "inactive_file"};
// The sums of version 1 are of the groups below it, too, as its limit and its use are.
constexpr GroupFiles kVersion1{"/memory.limit_in_bytes", "/memory.usage_in_bytes",
                               "total_inactive_file"};

uint64_t group_available_bytes(const std::string& folder, const GroupFiles& files) {
  constexpr uint64_t kAny = std::numeric_limits<uint64_t>::max();
  const auto limit = read_number(folder + std::string(files.limit));
  const auto used = read_number(folder + std::string(files.used));
  if (!limit || !used) return kAny;
  // What it has of files in the page cache and has not used lately counts as used, and goes
  // when something else needs the room.
  const uint64_t reclaimable = read_field(folder + "/memory.stat", files.reclaimable).value_or(0);
  const uint64_t kept = *used > reclaimable ? *used - reclaimable : 0;
  return *limit > kept ? *limit - kept : 0;
}

}  // namespace

uint64_t groups_available_bytes(const std::string& groups, const std::string& root) {
  uint64_t available = std::numeric_limits<uint64_t>::max();
  std::istringstream lines(groups);
  // Lines are ID:CONTROLLERS:PATH; version 2 has one, without controllers.
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const bool is_version_2 = second == first + 1;
    std::string controllers = line.substr(first, second - first);
    controllers.front() = ',';
    controllers += ',';
    if (!is_version_2 && controllers.find(",memory,") == std::string::npos) continue;
    const GroupFiles& files = is_version_2 ? kVersion2 : kVersion1;
    const std::string folder = is_version_2 ? root : root + "/memory";
    // Up to the root: a container may see its own group there, whatever its path says.
    for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {
      available = std::min(available, group_available_bytes(folder + path, files));
      if (path.find('/') == std::string::npos) break;
    }
  }
  return available;
}

uint64_t available_memory_bytes() {
  std::ifstream file("/proc/self/cgroup");
  const std::string groups{std::istreambuf_iterator<char>(file), {}};
  return std::min(kernel_available_bytes(), groups_available_bytes(groups, "/sys/fs/cgroup"));
}

int32_t available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int32_t>(std::thread::hardware_concurrency()));
}

std::string machine_description() {
  std::ifstream file("/proc/cpuinfo");
  std::string line, processor = "unknown processor";
  while (std::getline(file, line)) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos) {
      processor = line.substr(colon + 2);
      break;
    }
  }
  return processor + ", " + std::to_string(available_cpus()) + " CPUs";
}

}  // namespace snapllm
