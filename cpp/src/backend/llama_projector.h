// A model's eyes and ears: its projector over llama.cpp's mtmd.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "backend/mapped_files.h"
#include "base/hash.h"
#include "llama.h"
#include "mtmd.h"
#include "snapllm/media.h"
#include "snapllm/options.h"
#include "snapllm/request.h"
#include "snapllm/status.h"

namespace snapllm {

class LlamaMediaChunk : public MediaChunk {
 public:
  LlamaMediaChunk(mtmd::input_chunk_ptr chunk, const Hash128& projector, const Hash128& key)
      : chunk_(std::move(chunk)), projector_(projector), key_(key) {}
  const mtmd_input_chunk* get() const { return chunk_.get(); }
  // The projector it was prepared for.
  const Hash128& projector() const { return projector_; }
  // Of what that projector makes of it.
  const Hash128& key() const { return key_; }

 private:
  const mtmd::input_chunk_ptr chunk_;
  const Hash128 projector_;
  const Hash128 key_;
};

// A prompt with media in it.
struct MediaPrompt {
  std::vector<Token> tokens;
  std::vector<MediaSpan> spans;  // by their place in the prompt
};

struct ProjectorOptions {
  std::string path;
  bool use_gpu = false;
  int32_t num_threads = 1;
  FlashAttention flash_attention = FlashAttention::kAuto;
};

class LlamaProjector {
 public:
  // Bytes that weights and buffers of the file will take, as mtmd counts them without
  // loading anything. Checks the file first; errors: kFileNotFound, kInvalidModel.
  static Result<uint64_t> needed_bytes(const ProjectorOptions& options);
  // Checks the file, then loads it for `model`, which must outlive the projector. Errors:
  // kFileNotFound, kInvalidModel.
  static Result<std::shared_ptr<LlamaProjector>> create(const llama_model* model,
                                                        const ProjectorOptions& options);

  // Immutable, any thread:
  bool sees() const { return mtmd_support_vision(context_.get()); }
  bool hears() const { return mtmd_support_audio(context_.get()); }
  // False once the file at its path, of which it has a copy, was written to or is another.
  bool is_of(const std::string& path) const { return file_.are_intact() && file_.are_at({path}); }
  // Whether the model places tokens in more than one dimension.
  bool uses_mrope() const { return mtmd_decode_use_mrope(context_.get()); }
  // Tokenises a text in which each `marker` stands for the next of the media. Fails with
  // kInvalidRequest where they are not as many, or not of a kind the model can take.
  Result<MediaPrompt> tokenize(const std::string& text, const std::string& marker,
                               const std::vector<std::shared_ptr<const MediaInput>>& media) const;

  // Compute thread only:
  bool is_encoded(const LlamaMediaChunk& chunk) const { return encoded_.count(chunk.key()) > 0; }
  // Makes the chunk's embeddings, unless they are there.
  Status encode(const LlamaMediaChunk& chunk);
  // Puts the encoded chunk, made for this projector, into the context's KV memory. Returns llama_decode's result.
  Result<int32_t> decode(const LlamaMediaChunk& chunk, llama_context* context, int32_t sequence,
                         int32_t position);
  uint64_t num_encoded() const { return num_encoded_; }

 private:
  struct Encoded {
    Hash128 key;
    std::vector<float> embeddings;
  };

  LlamaProjector(mtmd::context_ptr context, int32_t embedding_size, const Hash128& fingerprint,
                 MappedFiles file)
      : context_(std::move(context)),
        embedding_size_(embedding_size),
        fingerprint_(fingerprint),
        file_(std::move(file)) {}

  Result<MediaPrompt> collect(const mtmd::input_chunks& chunks) const;
  // With a sound goes what it has of the samples that the request may have.
  Result<mtmd::bitmap> to_bitmap(const MediaInput& input, size_t index, size_t& max_samples) const;
  void remember(const Hash128& key, std::vector<float> embeddings);

  const mtmd::context_ptr context_;
  const int32_t embedding_size_;
  const Hash128 fingerprint_;  // of its file
  const MappedFiles file_;

  // Compute thread only: what was encoded lately, the newest first.
  std::list<Encoded> recent_;
  std::unordered_map<Hash128, std::list<Encoded>::iterator> encoded_;
  uint64_t encoded_bytes_ = 0;
  uint64_t num_encoded_ = 0;
};

}  // namespace snapllm
