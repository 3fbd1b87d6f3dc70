// The files of the store, behind an interface that tests can make fail.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "snapllm/status.h"

namespace snapllm {

struct FileInfo {
  std::string name;
  uint64_t bytes = 0;
  int64_t modified_ns = 0;
};

// A run of bytes to write.
struct Slice {
  const void* data = nullptr;
  size_t size = 0;
};

class FileEnv {
 public:
  virtual ~FileEnv() = default;
  virtual Status make_folder(const std::string& path) = 0;
  // The regular files of a folder, in no order.
  virtual Result<std::vector<FileInfo>> list(const std::string& folder) = 0;
  // The names of the folders in a folder, in no order.
  virtual Result<std::vector<std::string>> folders(const std::string& folder) = 0;
  // Writes the whole file or none of it: to a temporary name, synced, renamed, and the
  // folder synced. What it returns ok for is there after a crash. Fails with kDiskFull where there
  // is no room for it.
  virtual Status write(const std::string& path, const std::vector<Slice>& slices) = 0;
  // Reads `size` bytes at `offset`. Fails with kFileDamaged where the file is not there or ends
  // before them, and with kStorageFailed where it cannot be read, now at least.
  virtual Status read(const std::string& path, uint64_t offset, void* data, size_t size) = 0;
  virtual Status remove(const std::string& path) = 0;
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  // Makes the file the most recently used one.
  virtual void touch(const std::string& path) = 0;
};

// The files of the machine.
std::unique_ptr<FileEnv> posix_file_env();

// A lock on a folder that ends with the process at the latest.
class FolderLock {
 public:
  using LockedFile = std::pair<uint64_t, uint64_t>;  // device and inode: a folder has many paths

  // Fails with kInvalidRequest when the folder is locked already, and says whether it was
  // by this process.
  static Result<std::unique_ptr<FolderLock>> acquire(const std::string& folder);
  ~FolderLock();
  // In a forked child, which would hold it beyond its parent's end: leaves it to the parent alone.
  void abandon();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  FolderLock(int fd, LockedFile file) : fd_(fd), file_(file) {}
  int fd_;  // -1 once abandoned
  const LockedFile file_;
};

}  // namespace snapllm
