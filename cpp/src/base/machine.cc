#include "base/machine.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
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

}  // namespace

uint64_t group_available_bytes(const std::string& folder) {
  constexpr uint64_t kAny = std::numeric_limits<uint64_t>::max();
  const auto limit = read_number(folder + "/memory.max");
  const auto used = read_number(folder + "/memory.current");
  if (!limit || !used) return kAny;
  // What it has of files in the page cache and has not used lately counts as used, and goes
  // when something else needs the room.
  const uint64_t reclaimable = read_field(folder + "/memory.stat", "inactive_file").value_or(0);
  const uint64_t kept = *used > reclaimable ? *used - reclaimable : 0;
  return *limit > kept ? *limit - kept : 0;
}

uint64_t available_memory_bytes() {
  return std::min(kernel_available_bytes(), group_available_bytes("/sys/fs/cgroup"));
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
