// Sounds as the samples that a model hears.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "snapllm/status.h"

namespace snapllm {

// Decodes the bytes of a WAV, MP3 or FLAC file into one channel at that many samples a second. What
// the file says of its length is not believed. Fails with kInvalidRequest where there is no sound, or
// more than `max_samples` of it.
Result<std::vector<float>> decode_sound(std::string_view file, int32_t sample_rate,
                                        size_t max_samples);

}  // namespace snapllm
