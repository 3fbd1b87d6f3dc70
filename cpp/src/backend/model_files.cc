#include "backend/model_files.h"

#include <numeric>
#include <utility>

#include "llama.h"

namespace snapllm {
namespace {

constexpr size_t kMaxSuffix = 32;  // of a part's name

// Where a name is none of a part's, an empty string.
std::string name_before_suffix(const std::string& path, int32_t part, int32_t num_parts) {
  std::string name(path.size() + 1, '\0');
  const int32_t length =
      llama_split_prefix(name.data(), name.size(), path.c_str(), part, num_parts);
  name.resize(static_cast<size_t>(std::max(length, 0)));
  return name;
}

std::string path_of_part(const std::string& name, int32_t part, int32_t num_parts) {
  std::string path(name.size() + kMaxSuffix, '\0');
  const int32_t length =
      llama_split_path(path.data(), path.size(), name.c_str(), part, num_parts);
  path.resize(static_cast<size_t>(std::max(length, 0)));
  return path;
}

Status not_the_first(const GgufFile& file, int32_t part, int32_t num_parts) {
  std::string why = "it is part " + std::to_string(part + 1) + " of " + std::to_string(num_parts) +
                    " of a split model, whose first is to be loaded";
  const std::string name = name_before_suffix(file.path(), part, num_parts);
  if (!name.empty()) why += ": " + path_of_part(name, 0, num_parts);
  return file.invalid(why);
}

}  // namespace

Result<ModelFiles> ModelFiles::open(const std::string& path) {
  auto opened = GgufFile::open(path);
  if (!opened.ok()) return opened.status();
  std::vector<GgufFile> files;
  files.push_back(std::move(opened).value());
  const GgufFile& first = files.front();
  const int32_t num_parts = first.num_parts();
  if (num_parts == 1) return ModelFiles(std::move(files));
  if (first.part() != 0) return not_the_first(first, first.part(), num_parts);
  const std::string name = name_before_suffix(path, 0, num_parts);
  if (name.empty()) {
    return first.invalid("it is the first of " + std::to_string(num_parts) +
                         " parts, whose names must end as they were written: " +
                         path_of_part("NAME", 0, num_parts));
  }
  for (int32_t part = 1; part < num_parts; ++part) {
    auto next = GgufFile::open(path_of_part(name, part, num_parts));
    if (!next.ok()) return next.status();
    if (next.value().part() != part || next.value().num_parts() != num_parts) {
      return next.value().invalid("it is not the part that its name says");
    }
    files.push_back(std::move(next).value());
  }
  return ModelFiles(std::move(files));
}

std::vector<std::string> ModelFiles::paths() const {
  std::vector<std::string> paths;
  for (const GgufFile& file : files_) paths.push_back(file.path());
  return paths;
}

uint64_t ModelFiles::num_bytes() const {
  return std::accumulate(files_.begin(), files_.end(), uint64_t{0},
                         [](uint64_t sum, const GgufFile& file) { return sum + file.file_bytes(); });
}

bool ModelFiles::has_tensor(const std::string& name) const {
  return std::ranges::any_of(files_, [&](const GgufFile& file) { return file.has_tensor(name); });
}

bool ModelFiles::has_tensor_of(ggml_type type) const {
  return std::ranges::any_of(files_, [&](const GgufFile& file) { return file.has_tensor_of(type); });
}

}  // namespace snapllm
