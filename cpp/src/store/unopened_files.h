// The files of models that nobody has used since the start.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "store/file_env.h"

namespace snapllm {

// They take room on the disk like all others, and are the first to go: their model may be gone, or
// what they were computed with. Not thread-safe.
class UnopenedFiles {
 public:
  using IsPinned = std::function<bool(const Hash128& key)>;

  // Adds files of a model's folder, but for those that are no pieces; returns the bytes they have.
  uint64_t add(const Hash128& fingerprint, const std::vector<FileInfo>& files);
  // Leaves out those of a model; returns the bytes that they had.
  uint64_t take(const Hash128& fingerprint);
  // Of the piece's file; 0 where it has none here.
  uint64_t bytes_of(const Hash128& key) const;

  struct Victim {
    Hash128 fingerprint;
    Hash128 key;
    uint64_t bytes = 0;
  };
  // Leaves out what has to go so that so many bytes become free, or all that may: the least
  // recently used first.
  std::vector<Victim> evict(uint64_t bytes, const IsPinned& is_pinned);

 private:
  struct File {
    Hash128 fingerprint;
    uint64_t bytes = 0;
    int64_t modified_ns = 0;
  };
  std::unordered_map<Hash128, File> files_;  // by the key of the piece
};

}  // namespace snapllm
