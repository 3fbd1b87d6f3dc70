// How many threads decode a model fastest, measured once per model and machine.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "store/file_env.h"

namespace snapllm {

// Tries `max_threads`, then ever fewer. `time_decode` measures one decode of one token
// in microseconds.
int32_t fastest_num_threads(int32_t max_threads,
                            const std::function<double(int32_t num_threads)>& time_decode);

// What was measured, in a text file: a line with the format, one with the machine, and
// then one for each key with its number. A file of another machine, or one that cannot
// be read, is started anew. Thread-safe.
class CalibrationFile {
 public:
  CalibrationFile(std::string path, std::string machine, std::unique_ptr<FileEnv> env);

  std::optional<int32_t> find(const std::string& key) const;
  // Writes the file; a failure to is no failure of the caller's.
  void remember(const std::string& key, int32_t num_threads);

 private:
  const std::string path_;
  const std::string machine_;
  const std::unique_ptr<FileEnv> env_;
  mutable std::mutex mutex_;
  std::map<std::string, int32_t> known_;  // guarded by mutex_
};

}  // namespace snapllm
