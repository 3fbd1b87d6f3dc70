#include "backend/projector_header.h"

#include <initializer_list>

#include "backend/gguf_file.h"

namespace snapllm {
namespace {

constexpr uint64_t kMaxLayers = 512;
constexpr uint64_t kMaxDimension = uint64_t{1} << 20;
constexpr uint64_t kMaxImageSize = 1 << 14;

struct Bound {
  const char* key;
  uint64_t least;
  uint64_t most;
};

Status check_bounds(const GgufFile& file, const std::string& prefix,
                    std::initializer_list<Bound> bounds) {
  for (const Bound& bound : bounds) {
    const uint64_t value = file.integer(prefix + bound.key);
    if (value < bound.least || value > bound.most) {
      return file.invalid(prefix + bound.key + " is missing or out of range");
    }
  }
  return {};
}

Status check_tower(const GgufFile& file, const std::string& prefix) {
  Status status = check_bounds(file, prefix,
                               {{"embedding_length", 1, kMaxDimension},
                                {"feed_forward_length", 0, kMaxDimension},
                                {"block_count", 0, kMaxLayers},
                                {"projection_dim", 0, kMaxDimension},
                                {"attention.head_count", 1, kMaxDimension}});
  if (!status.ok()) return status;
  if (file.integer(prefix + "embedding_length") % file.integer(prefix + "attention.head_count") != 0 &&
      file.integer(prefix + "attention.head_dim") == 0) {
    return file.invalid(prefix + "attention.head_count does not divide the embedding");
  }
  return {};
}

Status check_vision(const GgufFile& file) {
  const std::string prefix = "clip.vision.";
  if (Status status = check_tower(file, prefix); !status.ok()) return status;
  Status status = check_bounds(
      file, prefix, {{"image_size", 1, kMaxImageSize}, {"patch_size", 1, kMaxImageSize}});
  if (!status.ok()) return status;
  if (file.integer("clip.vision.patch_size") > file.integer("clip.vision.image_size")) {
    return file.invalid("clip.vision.patch_size is larger than the image");
  }
  return {};
}

}  // namespace

Result<ProjectorHeader> read_projector_header(const std::string& path) {
  const auto opened = GgufFile::open(path);
  if (!opened.ok()) return opened.status();
  const GgufFile& file = opened.value();
  if (file.string("general.architecture") != "clip") {
    return file.invalid("it is not a projector (mmproj) file");
  }
  if (file.num_parts() > 1) return file.invalid("projectors cannot be split");
  ProjectorHeader header;
  header.file_bytes = file.file_bytes();
  header.has_vision = file.boolean("clip.has_vision_encoder");
  header.has_audio = file.boolean("clip.has_audio_encoder");
  if (!header.has_vision && !header.has_audio) {
    return file.invalid("the projector neither sees nor hears");
  }
  if (header.has_vision) {
    if (Status status = check_vision(file); !status.ok()) return status;
    const uint64_t side = file.integer("clip.vision.image_size") / file.integer("clip.vision.patch_size");
    header.num_patches = side * side;
  }
  if (header.has_audio) {
    if (Status status = check_tower(file, "clip.audio."); !status.ok()) return status;
  }
  return header;
}

}  // namespace snapllm
