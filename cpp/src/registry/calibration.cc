#include "registry/calibration.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

namespace snapllm {
namespace {

constexpr const char* kFormat = "snapllm calibration 1";
constexpr size_t kMaxEntries = 4096;
constexpr int32_t kMaxThreads = 4096;
// A step slower than this is compute-bound: more threads are better and trying out
// fewer would only delay the load.
constexpr double kSlowStepUs = 50'000.0;
// No hiccup of the machine takes as long as this.
constexpr double kVerySlowStepUs = 10 * kSlowStepUs;
// Fewer threads win a near-tie: they leave cores to the server.
constexpr double kTieFactor = 1.05;
constexpr size_t kRuns = 7;

}  // namespace

int32_t fastest_num_threads(int32_t max_threads,
                            const std::function<double(int32_t)>& time_decode) {
  // The median: on a busy machine many threads are fast by luck and slow as a rule.
  const auto usual_us = [&](int32_t num_threads) {
    std::vector<double> times;
    int num_slow = 0;  // in a row: a single one may be a hiccup
    (void)time_decode(num_threads);  // warms caches and reserves buffers
    while (times.size() < kRuns) {
      const double us = time_decode(num_threads);
      num_slow = us > kSlowStepUs ? num_slow + 1 : 0;
      if (num_slow == 2 || us > kVerySlowStepUs) return us;
      times.push_back(us);
    }
    std::ranges::nth_element(times, times.begin() + times.size() / 2);
    return times[times.size() / 2];
  };
  if (max_threads <= 1) return 1;
  int32_t best_threads = max_threads;
  double best_us = usual_us(max_threads);
  for (int32_t threads = max_threads / 2; threads >= 1 && best_us < kSlowStepUs; threads /= 2) {
    const double us = usual_us(threads);
    if (us > best_us * kTieFactor) break;
    best_threads = threads;
    best_us = std::min(best_us, us);
  }
  return best_threads;
}

CalibrationFile::CalibrationFile(std::string path, std::string machine,
                                 std::unique_ptr<FileEnv> env)
    : path_(std::move(path)), machine_(std::move(machine)), env_(std::move(env)) {
  // Of a pipe or a device the read might never end.
  if (std::error_code error; !std::filesystem::is_regular_file(path_, error)) return;
  std::ifstream file(path_);
  std::string line;
  if (!std::getline(file, line) || line != kFormat) return;
  if (!std::getline(file, line) || line != machine_) return;
  while (std::getline(file, line) && known_.size() < kMaxEntries) {
    const size_t separator = line.rfind(' ');
    if (separator == std::string::npos) continue;
    int32_t number = 0;
    const char* end = line.data() + line.size();
    const auto read = std::from_chars(line.data() + separator + 1, end, number);
    if (read.ptr != end || number < 1 || number > kMaxThreads) continue;
    known_[line.substr(0, separator)] = number;
  }
}

std::optional<int32_t> CalibrationFile::find(const std::string& key) const {
  std::lock_guard lock(mutex_);
  const auto it = known_.find(key);
  if (it == known_.end()) return std::nullopt;
  return it->second;
}

void CalibrationFile::remember(const std::string& key, int32_t num_threads) {
  std::lock_guard lock(mutex_);
  if (known_.size() >= kMaxEntries) known_.clear();
  known_[key] = num_threads;
  std::string text = std::string(kFormat) + "\n" + machine_ + "\n";
  for (const auto& [known_key, number] : known_) {
    text += known_key + " " + std::to_string(number) + "\n";
  }
  (void)env_->write(path_, {{text.data(), text.size()}});
}

}  // namespace snapllm
