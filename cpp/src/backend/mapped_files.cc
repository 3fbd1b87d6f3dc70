#include "backend/mapped_files.h"

#include <fcntl.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <system_error>
#include <utility>

namespace snapllm {

Result<MappedFiles> MappedFiles::open(const std::vector<std::string>& paths) {
  MappedFiles files;
  for (const std::string& path : paths) {
    File file{Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), {}};
    if (!file.descriptor.ok() || ::fstat(file.descriptor.get(), &file.facts) != 0) {
      return Status(StatusCode::kFileNotFound, "Cannot read " + path);
    }
    files.files_.push_back(std::move(file));
  }
  return files;
}

std::vector<MappingGuard> MappedFiles::guard_mappings() const {
  // By their names, as the kernel has them: its numbers of devices and files are others here on
  // some file systems.
  std::set<std::string> names;
  for (const File& file : files_) {
    std::error_code error;
    const std::string link = "/proc/self/fd/" + std::to_string(file.descriptor.get());
    if (const auto name = std::filesystem::read_symlink(link, error); !error) names.insert(name);
  }
  std::vector<MappingGuard> guards;
  std::ifstream mappings("/proc/self/maps");
  for (std::string line; std::getline(mappings, line);) {
    uintptr_t begin = 0, end = 0;
    int name_at = 0;
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " r--%*c %*s %*s %*s %n", &begin, &end,
                    &name_at) == 2 &&
        name_at > 0 && names.contains(line.substr(static_cast<size_t>(name_at)))) {
      guards.emplace_back(reinterpret_cast<const void*>(begin), end - begin);
    }
  }
  return guards;
}

bool MappedFiles::are_intact() const {
  const auto is_same = [](const File& file) {
    struct stat now {};
    return ::fstat(file.descriptor.get(), &now) == 0 && now.st_size == file.facts.st_size &&
           now.st_mtim.tv_sec == file.facts.st_mtim.tv_sec &&
           now.st_mtim.tv_nsec == file.facts.st_mtim.tv_nsec;
  };
  return std::ranges::none_of(guards_, &MappingGuard::was_hit) &&
         std::ranges::all_of(files_, is_same);
}

bool MappedFiles::are_at(const std::vector<std::string>& paths) const {
  // A file held open keeps its number. Where there is none at the path nothing else would be read.
  return std::ranges::equal(files_, paths, [](const File& file, const std::string& path) {
    struct stat now {};
    return ::stat(path.c_str(), &now) != 0 ||
           (now.st_dev == file.facts.st_dev && now.st_ino == file.facts.st_ino);
  });
}

}  // namespace snapllm
