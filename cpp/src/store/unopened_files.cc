#include "store/unopened_files.h"

#include <algorithm>

#include "store/piece_file.h"

namespace snapllm {

uint64_t UnopenedFiles::add(const Hash128& fingerprint, const std::vector<FileInfo>& files) {
  uint64_t bytes = 0;
  for (const FileInfo& file : files) {
    const auto key = piece_key_of(file.name);
    if (!key || !files_.try_emplace(*key, fingerprint, file.bytes, file.modified_ns).second) continue;
    bytes += file.bytes;
  }
  return bytes;
}

uint64_t UnopenedFiles::take(const Hash128& fingerprint) {
  uint64_t bytes = 0;
  std::erase_if(files_, [&](const auto& item) {
    if (item.second.fingerprint != fingerprint) return false;
    bytes += item.second.bytes;
    return true;
  });
  return bytes;
}

uint64_t UnopenedFiles::bytes_of(const Hash128& key) const {
  const auto it = files_.find(key);
  return it == files_.end() ? 0 : it->second.bytes;
}

std::vector<UnopenedFiles::Victim> UnopenedFiles::evict(uint64_t bytes, const IsPinned& is_pinned) {
  std::vector<std::pair<int64_t, Victim>> candidates;
  for (const auto& [key, file] : files_) {
    if (!is_pinned(key)) candidates.push_back({file.modified_ns, {file.fingerprint, key, file.bytes}});
  }
  std::ranges::sort(candidates, {}, &std::pair<int64_t, Victim>::first);
  std::vector<Victim> victims;
  for (uint64_t freed = 0; const auto& [modified_ns, victim] : candidates) {
    if (freed >= bytes) break;
    freed += victim.bytes;
    victims.push_back(victim);
    files_.erase(victim.key);
  }
  return victims;
}

}  // namespace snapllm
