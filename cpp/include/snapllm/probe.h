// Trying out files where a crash does no harm.
#pragma once

#include <string>
#include <vector>

#include "snapllm/status.h"

namespace snapllm {

// Loads the projector for the vocabulary of the model, encodes an image with it unless that
// takes long, and frees it again. Upstream can crash on files that are made for that, so
// this is for a process that may die. Fails with kGenerationFailed where it loads but
// cannot encode.
Status probe_projector(const std::string& model_path, const std::string& mmproj_path);

// The texts of the chat templates that a model's file brings, byte for byte; none for many.
// Errors: kFileNotFound, kInvalidModel.
Result<std::vector<std::string>> chat_templates(const std::string& model_path);

// Compiles a chat template and renders chats of all kinds with it. Upstream lets templates recurse, loop
// and grow without bound, so this is for a process that may die: it does when memory runs out. What
// they refuse by themselves is no failure.
void probe_chat_template(const std::string& text);

}  // namespace snapllm
