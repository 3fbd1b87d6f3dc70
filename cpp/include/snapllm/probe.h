// Trying out a projector file where a crash does no harm.
#pragma once

#include <string>

#include "snapllm/status.h"

namespace snapllm {

// Loads the projector for the vocabulary of the model, encodes an image with it unless that
// takes long, and frees it again. Upstream can crash on files that are made for that, so
// this is for a process that may die. Fails with kGenerationFailed where it loads but
// cannot encode.
Status probe_projector(const std::string& model_path, const std::string& mmproj_path);

}  // namespace snapllm
