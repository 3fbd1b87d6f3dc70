#include "backend/weights_cache.h"

#include <sys/stat.h>

#include <utility>

namespace snapllm {

std::string weights_key(const std::vector<std::string>& paths, int32_t gpu_layers) {
  std::string key = std::to_string(gpu_layers);
  for (const std::string& path : paths) {
    struct stat facts {};
    // A file that cannot be read is refused elsewhere.
    (void)::stat(path.c_str(), &facts);
    for (const auto number : {int64_t(facts.st_dev), int64_t(facts.st_ino), int64_t(facts.st_size),
                              int64_t(facts.st_mtim.tv_sec), int64_t(facts.st_mtim.tv_nsec)}) {
      key.append(":").append(std::to_string(number));
    }
  }
  return key;
}

Result<WeightsCache::Weights> WeightsCache::get(
    const std::string& key, const std::function<Result<Weights>()>& load) {
  std::shared_ptr<Slot> slot;
  {
    std::lock_guard lock(mutex_);
    // Slots that nobody waits at and whose weights are gone are of no use any more.
    std::erase_if(slots_, [](const auto& item) {
      return item.second.use_count() == 1 && item.second->weights.expired();
    });
    auto& entry = slots_[key];
    if (entry == nullptr) entry = std::make_shared<Slot>();
    slot = entry;
  }
  std::lock_guard lock(slot->mutex);
  if (Weights weights = slot->weights.lock()) return weights;
  auto loaded = load();
  if (!loaded.ok()) return loaded.status();
  slot->weights = loaded.value();
  return loaded;
}

}  // namespace snapllm
