#include "backend/llama_projector.h"

#include <algorithm>
#include <future>
#include <map>
#include <string_view>
#include <utility>

#include "backend/fingerprint.h"
#include "backend/llama_runtime.h"
#include "backend/projector_header.h"
#include "backend/sound.h"
#include "mtmd-helper.h"

namespace snapllm {
namespace {

// Embeddings kept after use: the same image comes again with the next question.
constexpr uint64_t kMaxEncodedBytes = uint64_t{64} << 20;

// Of all sounds of a request, decoded: a little more than what is taken of them encoded can be.
constexpr size_t kMaxSoundSeconds = 4500;

Status invalid(const std::string& message) { return {StatusCode::kInvalidRequest, message}; }

llama_flash_attn_type to_llama(FlashAttention flash_attention) {
  switch (flash_attention) {
    case FlashAttention::kOn: return LLAMA_FLASH_ATTN_TYPE_ENABLED;
    case FlashAttention::kOff: return LLAMA_FLASH_ATTN_TYPE_DISABLED;
    case FlashAttention::kAuto: break;
  }
  // Unlike a text model, a projector computes all of an image at once.
  return LLAMA_FLASH_ATTN_TYPE_AUTO;
}

mtmd_context_params context_params(const ProjectorOptions& options) {
  mtmd_context_params params = mtmd_context_params_default();
  params.use_gpu = options.use_gpu;
  params.n_threads = options.num_threads;
  params.flash_attn_type = to_llama(options.flash_attention);
  params.print_timings = false;
  params.warmup = true;  // finds out now what would not compute later
  return params;
}

// Negative, and never -1, which elsewhere means that there is no token.
Token virtual_token(const Hash128& key, int32_t index) {
  const uint64_t hash = xxh64(&key, sizeof key, static_cast<uint64_t>(index));
  return -2 - static_cast<Token>(hash % 0x7FFF'FFF0u);
}

// The text between the markers.
std::vector<std::string> split(const std::string& text, const std::string& marker) {
  std::vector<std::string> pieces;
  size_t begin = 0;
  for (size_t at = text.find(marker); at != std::string::npos; at = text.find(marker, begin)) {
    pieces.push_back(text.substr(begin, at - begin));
    begin = at + marker.size();
  }
  pieces.push_back(text.substr(begin));
  return pieces;
}

}  // namespace

Result<uint64_t> LlamaProjector::needed_bytes(const ProjectorOptions& options) {
  const auto header = read_projector_header(options.path);
  if (!header.ok()) return header.status();
  return guard_llama(StatusCode::kInvalidModel, [&]() -> Result<uint64_t> {
    LlamaAssertTrap trap;
    LlamaLogCapture log;
    uint64_t bytes = 0;
    for (const auto& [device, used] :
         mtmd_get_memory_usage(options.path.c_str(), context_params(options))) {
      bytes += used;
    }
    return std::max(bytes, header.value().file_bytes);
  });
}

Result<std::shared_ptr<LlamaProjector>> LlamaProjector::create(const llama_model* model,
                                                               const ProjectorOptions& options) {
  using Projector = std::shared_ptr<LlamaProjector>;
  const auto header = read_projector_header(options.path);
  if (!header.ok()) return header.status();
  auto file = MappedFiles::open({options.path});
  if (!file.ok()) return file.status();
  const auto fingerprint = file_fingerprint(options.path);
  if (!fingerprint.ok()) return fingerprint.status();
  const auto load = [&]() -> Result<Projector> {
    LlamaAssertTrap trap;
    LlamaLogCapture log;
    mtmd::context_ptr context(
        mtmd_init_from_file(options.path.c_str(), model, context_params(options)));
    if (!context) {
      return Status(StatusCode::kInvalidModel,
                    "Cannot load " + options.path + ": " + log.errors());
    }
    return Projector(new LlamaProjector(std::move(context), llama_model_n_embd_inp(model),
                                        fingerprint.value(), std::move(file).value()));
  };
  // On a thread of its own: the warm-up computes, and the OpenMP workers made for it must go
  // (see ComputeThread::shared).
  const auto loading = [&] { return guard_llama(StatusCode::kInvalidModel, load); };
  return std::async(std::launch::async, loading).get();
}

Result<mtmd::bitmap> LlamaProjector::to_bitmap(const MediaInput& input, size_t index,
                                               size_t& max_samples) const {
  const auto* data = reinterpret_cast<const unsigned char*>(input.data.data());
  mtmd::bitmap bitmap;
  if (input.kind == MediaKind::kImage) {
    if (!sees()) return invalid("this model takes no images");
    const auto num_pixels = static_cast<uint64_t>(std::max(input.width, 0)) *
                            static_cast<uint64_t>(std::max(input.height, 0));
    if (num_pixels == 0 || num_pixels * 3 != input.data.size()) {
      return invalid("an image's pixels do not fit its size");
    }
    bitmap.ptr.reset(mtmd_bitmap_init(static_cast<uint32_t>(input.width),
                                      static_cast<uint32_t>(input.height), data));
  } else {
    if (!hears()) return invalid("this model takes no audio");
    const auto samples = decode_sound(input.data, mtmd_get_audio_sample_rate(context_.get()),
                                      max_samples);
    if (!samples.ok()) return samples.status();
    max_samples -= samples.value().size();
    bitmap.ptr.reset(mtmd_bitmap_init_from_audio(samples.value().size(), samples.value().data()));
  }
  // With its place, so that chunks of neighbouring inputs can be told apart.
  bitmap.set_id((std::to_string(index) + ":" + input.id).c_str());
  return bitmap;
}

Result<MediaPrompt> LlamaProjector::tokenize(
    const std::string& text, const std::string& marker,
    const std::vector<std::shared_ptr<const MediaInput>>& media) const {
  const std::vector<std::string> pieces = split(text, marker);
  if (pieces.size() != media.size() + 1) {
    return invalid("the chat template does not show each image of the conversation once");
  }
  return guard_llama(StatusCode::kInvalidRequest, [&]() -> Result<MediaPrompt> {
    LlamaAssertTrap trap;
    LlamaLogCapture log;
    std::vector<mtmd::bitmap> bitmaps;
    const int32_t sample_rate = hears() ? mtmd_get_audio_sample_rate(context_.get()) : 0;
    size_t max_samples = kMaxSoundSeconds * static_cast<size_t>(std::max(sample_rate, 0));
    for (size_t i = 0; i < media.size(); ++i) {
      auto bitmap = to_bitmap(*media[i], i, max_samples);
      if (!bitmap.ok()) return bitmap.status();
      bitmaps.push_back(std::move(bitmap).value());
    }
    std::vector<mtmd_input_text> texts;
    for (const std::string& piece : pieces) {
      texts.push_back({piece.data(), piece.size(), /*add_special=*/true, /*parse_special=*/true});
    }
    std::vector<mtmd_input_part> parts;
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (!pieces[i].empty()) parts.push_back({&texts[i], nullptr});
      if (i < bitmaps.size()) parts.push_back({nullptr, bitmaps[i].ptr.get()});
    }
    std::vector<const mtmd_input_part*> pointers;
    for (const mtmd_input_part& part : parts) pointers.push_back(&part);
    const mtmd::input_chunks chunks(mtmd_input_chunks_init());
    if (mtmd_tokenize_from_parts(context_.get(), chunks.ptr.get(), pointers.data(), pointers.size(),
                                 /*add_special=*/true) != 0) {
      return invalid("an image or sound cannot be prepared for the model. " + log.errors());
    }
    return collect(chunks);
  });
}

Result<MediaPrompt> LlamaProjector::collect(const mtmd::input_chunks& chunks) const {
  MediaPrompt prompt;
  std::map<std::string, int32_t> num_chunks;  // of each input so far
  for (size_t i = 0; i < chunks.size(); ++i) {
    const mtmd_input_chunk* chunk = chunks[i];
    if (mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_TEXT) {
      size_t count = 0;
      const llama_token* tokens = mtmd_input_chunk_get_tokens_text(chunk, &count);
      prompt.tokens.insert(prompt.tokens.end(), tokens, tokens + count);
      continue;
    }
    const std::string name = mtmd_input_chunk_get_id(chunk);
    MediaSpan span;
    span.begin = static_cast<int32_t>(prompt.tokens.size());
    span.num_tokens = static_cast<int32_t>(mtmd_input_chunk_get_n_tokens(chunk));
    span.num_positions = mtmd_input_chunk_get_n_pos(chunk);
    if (span.num_tokens <= 0 || span.num_positions <= 0) {
      return invalid("an image or sound gives the model nothing to see or hear");
    }
    const std::string content = name.substr(name.find(':') + 1);
    const int32_t place[] = {num_chunks[name]++, span.num_tokens};
    const Hash128 key = 
        hash128(place, sizeof place, hash128(content.data(), content.size(), fingerprint_));
    for (int32_t k = 0; k < span.num_tokens; ++k) prompt.tokens.push_back(virtual_token(key, k));
    span.chunk = std::make_shared<LlamaMediaChunk>(
        mtmd::input_chunk_ptr(mtmd_input_chunk_copy(chunk)), fingerprint_, key);
    prompt.spans.push_back(std::move(span));
  }
  return prompt;
}

Status LlamaProjector::encode(const LlamaMediaChunk& chunk) {
  if (is_encoded(chunk)) return {};
  if (chunk.projector() != fingerprint_) {
    return {StatusCode::kInvalidRequest, "the prompt was made for another projector"};
  }
  return guard_llama(StatusCode::kGenerationFailed, [&]() -> Status {
    LlamaAssertTrap trap;
    LlamaLogCapture log;
    if (mtmd_encode_chunk(context_.get(), chunk.get()) != 0) {
      return {StatusCode::kGenerationFailed, "the image cannot be encoded. " + log.errors()};
    }
    const float* embeddings = mtmd_get_output_embd(context_.get());
    const size_t count = mtmd_input_chunk_get_n_tokens(chunk.get()) *
                         static_cast<size_t>(embedding_size_);
    remember(chunk.key(), {embeddings, embeddings + count});
    ++num_encoded_;
    return {};
  });
}

void LlamaProjector::remember(const Hash128& key, std::vector<float> embeddings) {
  encoded_bytes_ += embeddings.size() * sizeof(float);
  recent_.push_front({key, std::move(embeddings)});
  encoded_[key] = recent_.begin();
  while (encoded_bytes_ > kMaxEncodedBytes && recent_.size() > 1) {
    encoded_bytes_ -= recent_.back().embeddings.size() * sizeof(float);
    encoded_.erase(recent_.back().key);
    recent_.pop_back();
  }
}

Result<int32_t> LlamaProjector::decode(const LlamaMediaChunk& chunk, llama_context* context,
                                       int32_t sequence, int32_t position) {
  const auto it = encoded_.find(chunk.key());
  if (it == encoded_.end()) {
    return Status(StatusCode::kGenerationFailed, "the image was not encoded");
  }
  recent_.splice(recent_.begin(), recent_, it->second);
  const auto num_tokens = static_cast<int32_t>(mtmd_input_chunk_get_n_tokens(chunk.get()));
  const auto num_batch = static_cast<int32_t>(llama_n_batch(context));
  if (mtmd_decode_use_non_causal(context_.get(), chunk.get()) &&
      num_tokens > static_cast<int32_t>(llama_n_ubatch(context))) {
    return Status(StatusCode::kGenerationFailed,
                  "an image of " + std::to_string(num_tokens) +
                      " tokens must fit the physical batch; load the model with larger "
                      "ubatch_tokens");
  }
  return guard_llama(StatusCode::kGenerationFailed, [&]() -> Result<int32_t> {
    LlamaLogCapture log;
    llama_pos end = 0;
    return mtmd_helper_decode_image_chunk(context_.get(), context, chunk.get(),
                                          it->second->embeddings.data(), position, sequence,
                                          num_batch, &end, nullptr, nullptr);
  });
}

}  // namespace snapllm
