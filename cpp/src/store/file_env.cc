#include "store/file_env.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <system_error>
#include <utility>

#include "base/descriptor.h"

namespace snapllm {
namespace {

namespace fs = std::filesystem;

Status failed(const std::string& what, const std::string& path, int error) {
  const bool is_full = error == ENOSPC || error == EDQUOT;
  return {is_full ? StatusCode::kDiskFull : StatusCode::kStorageFailed,
          "cannot " + what + " " + path + ": " + std::strerror(error)};
}

Status damaged(const std::string& path, const char* what) {
  return {StatusCode::kFileDamaged, path + ": " + what};
}

// 0, or what went wrong.
int write_all(int fd, const Slice& slice) {
  const auto* p = static_cast<const char*>(slice.data);
  for (size_t left = slice.size; left > 0;) {
    const ssize_t written = ::write(fd, p, left);
    if (written < 0) {
      if (errno == EINTR) continue;
      return errno;
    }
    p += written;
    left -= static_cast<size_t>(written);
  }
  return 0;
}

int sync_folder_of(const std::string& path) {
  Descriptor folder(::open(fs::path(path).parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return !folder.ok() || ::fsync(folder.get()) != 0 ? errno : 0;
}

class PosixFileEnv : public FileEnv {
 public:
  Status make_folder(const std::string& path) override {
    std::error_code error;
    fs::create_directories(path, error);
    if (error) return failed("make the folder", path, error.value());
    return {};
  }

  Result<std::vector<FileInfo>> list(const std::string& folder) override {
    std::vector<FileInfo> files;
    std::error_code error;
    fs::directory_iterator it(folder, error);
    for (; !error && it != fs::directory_iterator(); it.increment(error)) {
      struct stat facts{};
      if (::stat(it->path().c_str(), &facts) != 0 || !S_ISREG(facts.st_mode)) continue;
      files.push_back({it->path().filename().string(), static_cast<uint64_t>(facts.st_size),
                       facts.st_mtim.tv_sec * 1'000'000'000LL + facts.st_mtim.tv_nsec});
    }
    if (error) return failed("list", folder, error.value());
    return files;
  }

  Result<std::vector<std::string>> folders(const std::string& folder) override {
    std::vector<std::string> names;
    std::error_code error;
    fs::directory_iterator it(folder, error);
    for (; !error && it != fs::directory_iterator(); it.increment(error)) {
      std::error_code unreadable;
      if (it->is_directory(unreadable)) names.push_back(it->path().filename().string());
    }
    if (error) return failed("list", folder, error.value());
    return names;
  }

  Status write(const std::string& path, const std::vector<Slice>& slices) override {
    const std::string scratch = path + ".tmp";
    Descriptor file(::open(scratch.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    int error = file.ok() ? 0 : errno;
    for (const Slice& slice : slices) {
      if (error == 0) error = write_all(file.get(), slice);
    }
    if (error == 0 && ::fsync(file.get()) != 0) error = errno;
    if (const int close_error = file.close(); error == 0) error = close_error;
    if (error == 0 && ::rename(scratch.c_str(), path.c_str()) != 0) error = errno;
    if (error == 0) error = sync_folder_of(path);
    if (error == 0) return {};
    ::unlink(scratch.c_str());
    return failed("write", path, error);
  }

  Status read(const std::string& path, uint64_t offset, void* data, size_t size) override {
    Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.ok()) return errno == ENOENT ? damaged(path, "not there") : failed("open", path, errno);
    auto* p = static_cast<char*>(data);
    while (size > 0) {
      const ssize_t got = ::pread(file.get(), p, size, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return failed("read", path, errno);
      if (got == 0) return damaged(path, "too short");
      p += got;
      offset += static_cast<uint64_t>(got);
      size -= static_cast<size_t>(got);
    }
    return {};
  }

  Status remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return failed("remove", path, errno);
    return {};
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return failed("rename", from, errno);
    return {};
  }

  void touch(const std::string& path) override { ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0); }
};

// The files that this process has locked. A forked child has the entries of its parent, which
// is another process.
struct LockedFiles {
  std::mutex mutex;
  std::map<FolderLock::LockedFile, pid_t> owners;  // guarded by mutex
};

LockedFiles& locked_files() {
  static LockedFiles files;
  return files;
}

}  // namespace

std::unique_ptr<FileEnv> posix_file_env() { return std::make_unique<PosixFileEnv>(); }

Result<std::unique_ptr<FolderLock>> FolderLock::acquire(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return failed("make", folder, error.value());
  const std::string path = folder + "/lock";
  Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  struct stat facts{};
  if (!file.ok() || ::fstat(file.get(), &facts) != 0) return failed("open", path, errno);
  const LockedFile id{facts.st_dev, facts.st_ino};
  auto& [mutex, owners] = locked_files();
  std::lock_guard lock(mutex);
  if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) {
    owners[id] = getpid();
    return std::unique_ptr<FolderLock>(new FolderLock(file.release(), id));
  }
  if (errno != EWOULDBLOCK) return failed("lock", path, errno);
  const auto owner = owners.find(id);
  const bool is_own = owner != owners.end() && owner->second == getpid();
  return Status(StatusCode::kInvalidRequest,
                "the workspace " + folder + " is in use by another " +
                    (is_own ? "engine of this process" : "process"));
}

// Closes this process's descriptor only: the lock is that of all there are of the open file.
// Without the mutex, which may be held for ever there.
void FolderLock::abandon() { ::close(std::exchange(fd_, -1)); }

FolderLock::~FolderLock() {
  if (fd_ < 0) return;
  auto& [mutex, owners] = locked_files();
  std::lock_guard lock(mutex);
  owners.erase(file_);
  ::close(fd_);
}

}  // namespace snapllm
