// What is checked of a prompt before it is queued.
#pragma once

#include "snapllm/request.h"
#include "snapllm/stats.h"
#include "snapllm/status.h"

namespace snapllm {

// Takes the media of the request's chat that lie within its prompt, unless it has its own.
void attach_media(GenerateRequest& request);

// Refuses what the model could not compute: no tokens or too many, tokens outside of the
// vocabulary, virtual tokens without their media, a prompt without text at its end.
Status check_prompt(const GenerateRequest& request, const ModelInfo& info);

}  // namespace snapllm
