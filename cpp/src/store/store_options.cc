#include "store/store_options.h"

#include <algorithm>
#include <filesystem>
#include <string>

#include "base/machine.h"

namespace snapllm {
namespace {

constexpr uint64_t kMaxAutoRamBytes = uint64_t{8} << 30;
constexpr uint64_t kRamDivisor = 8;  // of the memory that is free
constexpr uint64_t kMaxAutoDiskBytes = uint64_t{20} << 30;
constexpr uint64_t kDiskDivisor = 4;  // of the space that is free

uint64_t auto_ram_bytes(uint64_t memory_budget_bytes) {
  const uint64_t available = available_memory_bytes();
  const uint64_t usable =
      memory_budget_bytes > 0 ? std::min(memory_budget_bytes, available) : available;
  return std::min(usable / kRamDivisor, kMaxAutoRamBytes);
}

// What the files below a folder take; what cannot be read counts as nothing.
uint64_t bytes_below(const std::string& folder) {
  uint64_t bytes = 0;
  std::error_code error;
  std::filesystem::recursive_directory_iterator it(folder, error);
  for (; !error && it != std::filesystem::recursive_directory_iterator(); it.increment(error)) {
    std::error_code unreadable;
    if (!it->is_regular_file(unreadable)) continue;
    const uint64_t size = it->file_size(unreadable);
    if (!unreadable) bytes += size;
  }
  return bytes;
}

uint64_t auto_disk_bytes_of(const EngineOptions& options, const std::string& folder) {
  std::error_code error;
  const auto space = std::filesystem::space(options.workspace, error);
  return error ? kMaxAutoDiskBytes : auto_disk_bytes(space.available, bytes_below(folder));
}

}  // namespace

uint64_t auto_disk_bytes(uint64_t available, uint64_t held) {
  return std::min((available + held) / kDiskDivisor, kMaxAutoDiskBytes);
}

KvStoreOptions store_options(const EngineOptions& options) {
  KvStoreOptions store;
  store.ram_bytes = options.kv_ram_bytes > 0 ? options.kv_ram_bytes
                                             : auto_ram_bytes(options.memory_budget_bytes);
  if (options.workspace.empty()) return store;
  store.folder = options.workspace + "/kv";
  store.disk_bytes = options.kv_disk_bytes > 0 ? options.kv_disk_bytes
                                               : auto_disk_bytes_of(options, store.folder);
  return store;
}

}  // namespace snapllm
