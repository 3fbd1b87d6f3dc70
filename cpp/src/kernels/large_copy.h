// Copies of more bytes than a core's caches hold.
#pragma once

#include <cstddef>
#include <cstdint>

namespace snapllm {

// Copies past the caches: the memory that is written is not read first, and what is in the caches
// stays there. The two must not overlap.
void copy_past_caches(uint8_t* to, const uint8_t* from, size_t size);

}  // namespace snapllm
