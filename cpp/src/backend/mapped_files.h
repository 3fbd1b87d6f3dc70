// Files that weights are mapped or copied from, and whether they still are what was loaded.
#pragma once

#include <sys/stat.h>

#include <string>
#include <vector>

#include "base/descriptor.h"
#include "base/mapping_guard.h"
#include "snapllm/status.h"

namespace snapllm {

// Holds the files open: one that is renamed into the place of another changes nothing.
class MappedFiles {
 public:
  // Errors: kFileNotFound.
  static Result<MappedFiles> open(const std::vector<std::string>& paths);

  // Lets what is mapped from them survive their loss (see MappingGuard).
  void guard(const void* begin, size_t size) { guards_.emplace_back(begin, size); }
  // Guards whatever the process has mapped from them by now, for who is about to read it; on other
  // systems than Linux nothing. To be dropped with the mappings.
  std::vector<MappingGuard> guard_mappings() const;
  // Whether nobody has written to them since they were opened, and all of them could be read.
  // Costs a system call for each.
  bool are_intact() const;
  // False once one of these paths, by which they may be reached, too, stands for another file than
  // the one in its place: a load would read that one.
  // REQUIRES: as many paths as there are files
  bool are_at(const std::vector<std::string>& paths) const;

 private:
  struct File {
    Descriptor descriptor;
    struct stat facts;  // when it was opened
  };

  std::vector<File> files_;
  std::vector<MappingGuard> guards_;
};

}  // namespace snapllm
