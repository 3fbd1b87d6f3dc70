// Files in memory that can fail: any call, for want of space, or by a crash that
// loses what was not renamed into place.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "store/file_env.h"

namespace snapllm::testing {

// What outlives a store: shared by the environments of consecutive "processes".
struct FakeDisk {
  std::mutex mutex;
  std::map<std::string, std::vector<uint8_t>> files;
  std::map<std::string, int64_t> modified;
  int64_t clock = 0;
  uint64_t free_bytes = UINT64_MAX;
  bool is_read_only = false;
  bool has_folder = true;
  bool cannot_list = false;
  int reads_until_failure = -1;  // then all fail, as for want of file descriptors
  std::function<void()> before_write;  // called without the mutex
  std::function<void()> before_read;   // the same
  int writes_until_crash = -1;  // then every later write is lost and leaves half a .tmp
};

class FakeFileEnv : public FileEnv {
 public:
  explicit FakeFileEnv(std::shared_ptr<FakeDisk> disk) : disk_(std::move(disk)) {}

  Status make_folder(const std::string&) override {
    if (disk_->is_read_only) return failed("read-only");
    disk_->has_folder = true;
    return {};
  }

  Result<std::vector<FileInfo>> list(const std::string& folder) override {
    std::lock_guard lock(disk_->mutex);
    if (disk_->cannot_list) return failed("too many open files");
    std::vector<FileInfo> files;
    for (const auto& [path, bytes] : disk_->files) {
      if (!path.starts_with(folder + "/")) continue;
      files.push_back({path.substr(folder.size() + 1), bytes.size(), disk_->modified[path]});
    }
    return files;
  }

  Result<std::vector<std::string>> folders(const std::string& folder) override {
    std::lock_guard lock(disk_->mutex);
    std::set<std::string> names;
    for (const auto& [path, bytes] : disk_->files) {
      if (!path.starts_with(folder + "/")) continue;
      const std::string rest = path.substr(folder.size() + 1);
      if (const size_t end = rest.find('/'); end != std::string::npos) names.insert(rest.substr(0, end));
    }
    return std::vector(names.begin(), names.end());
  }

  Status write(const std::string& path, const std::vector<Slice>& slices) override {
    if (disk_->before_write) disk_->before_write();
    std::lock_guard lock(disk_->mutex);
    if (disk_->is_read_only) return failed("read-only");
    if (!disk_->has_folder) return failed("no such folder");
    std::vector<uint8_t> bytes;
    for (const Slice& slice : slices) {
      const auto* p = static_cast<const uint8_t*>(slice.data);
      bytes.insert(bytes.end(), p, p + slice.size);
    }
    if (bytes.size() > disk_->free_bytes) return {StatusCode::kDiskFull, "no space"};
    if (disk_->writes_until_crash == 0) {
      bytes.resize(bytes.size() / 2);
      disk_->files[path + ".tmp"] = bytes;
      return failed("crashed");
    }
    if (disk_->writes_until_crash > 0) --disk_->writes_until_crash;
    disk_->free_bytes -= bytes.size();
    disk_->files[path] = std::move(bytes);
    disk_->modified[path] = ++disk_->clock;
    return {};
  }

  Status read(const std::string& path, uint64_t offset, void* data, size_t size) override {
    if (disk_->before_read) disk_->before_read();
    std::lock_guard lock(disk_->mutex);
    if (disk_->reads_until_failure == 0) return failed("too many open files");
    if (disk_->reads_until_failure > 0) --disk_->reads_until_failure;
    const auto it = disk_->files.find(path);
    if (it == disk_->files.end()) return {StatusCode::kFileDamaged, "not there"};
    if (offset + size > it->second.size()) return {StatusCode::kFileDamaged, "too short"};
    std::memcpy(data, it->second.data() + offset, size);
    return {};
  }

  Status remove(const std::string& path) override {
    std::lock_guard lock(disk_->mutex);
    if (disk_->is_read_only) return failed("read-only");
    if (const auto file = disk_->files.find(path); file != disk_->files.end()) {
      disk_->free_bytes += file->second.size();
      disk_->files.erase(file);
    }
    return {};
  }

  Status rename(const std::string& from, const std::string& to) override {
    std::lock_guard lock(disk_->mutex);
    disk_->files[to] = std::move(disk_->files[from]);
    disk_->files.erase(from);
    return {};
  }

  void touch(const std::string& path) override {
    std::lock_guard lock(disk_->mutex);
    disk_->modified[path] = ++disk_->clock;
  }

 private:
  static Status failed(const std::string& why) { return {StatusCode::kStorageFailed, why}; }

  const std::shared_ptr<FakeDisk> disk_;
};

}  // namespace snapllm::testing
