// Images and sound in a prompt.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace snapllm {

enum class MediaKind { kImage, kAudio };

// A decoded image, or a sound file, as the caller hands it in.
struct MediaInput {
  MediaKind kind = MediaKind::kImage;
  int32_t width = 0;  // of an image, in pixels
  int32_t height = 0;
  // An image's pixels row by row, three bytes (red, green, blue) each; a sound's file,
  // WAV or MP3.
  std::string data;
  // Names the content: inputs of the same id are the same. What is computed for one is
  // reused for the other, so the id must be a hash that nobody can forge.
  std::string id;
};

// A piece of an input that the model's projector turns into tokens of its own.
// Immutable; made and understood by the backend only.
class MediaChunk {
 public:
  virtual ~MediaChunk() = default;
};

// Where a chunk stands in a prompt. The prompt has a virtual token for each of the
// chunk's: negative, and derived from the chunk's content and the token's place in it,
// so that equal prompts have equal tokens and nothing else needs to know of images.
struct MediaSpan {
  int32_t begin = 0;  // index of its first token in the prompt
  int32_t num_tokens = 0;
  // Positions it takes of the sequence's; fewer than tokens where the model places them
  // in two dimensions.
  int32_t num_positions = 0;
  std::shared_ptr<const MediaChunk> chunk;

  int32_t end() const { return begin + num_tokens; }
};

}  // namespace snapllm
