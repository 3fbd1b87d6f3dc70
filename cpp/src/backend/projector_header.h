// The facts of a projector file (mmproj) that decide whether it is loaded.
#pragma once

#include <cstdint>
#include <string>

#include "snapllm/status.h"

namespace snapllm {

struct ProjectorHeader {
  uint64_t file_bytes = 0;
  bool has_vision = false;
  bool has_audio = false;
  uint64_t num_patches = 0;  // of an image of the size it was trained for
};

// Reads and checks a projector's header: what llama.cpp takes from it without a check of
// its own. Errors: kFileNotFound, kInvalidModel.
Result<ProjectorHeader> read_projector_header(const std::string& path);

}  // namespace snapllm
