#include "backend/mapped_files.h"

#include <fcntl.h>

#include <algorithm>
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

}  // namespace snapllm
