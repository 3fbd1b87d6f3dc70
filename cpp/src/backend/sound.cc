#include "backend/sound.h"

#include <memory>

#define MINIAUDIO_IMPLEMENTATION
#define MA_NO_ENCODING
#define MA_NO_DEVICE_IO
#define MA_NO_RESOURCE_MANAGER
#define MA_NO_NODE_GRAPH
#define MA_NO_ENGINE
#define MA_NO_GENERATION
#define MA_API static  // mtmd has an implementation of its own
#define ma_atomic_global_lock snapllm_ma_atomic_global_lock  // the one symbol that is not static
#include "miniaudio/miniaudio.h"

namespace snapllm {
namespace {

constexpr size_t kChunkSamples = 1 << 16;

struct DecoderEnd {
  void operator()(ma_decoder* decoder) const { ma_decoder_uninit(decoder); }
};

Status undecodable() { return {StatusCode::kInvalidRequest, "the audio cannot be decoded"}; }

}  // namespace

Result<std::vector<float>> decode_sound(std::string_view file, int32_t sample_rate,
                                        size_t max_samples) {
  const ma_decoder_config config =
      ma_decoder_config_init(ma_format_f32, /*outputChannels=*/1, static_cast<ma_uint32>(sample_rate));
  ma_decoder decoder;
  if (ma_decoder_init_memory(file.data(), file.size(), &config, &decoder) != MA_SUCCESS) {
    return undecodable();
  }
  const std::unique_ptr<ma_decoder, DecoderEnd> end(&decoder);
  std::vector<float> samples;
  while (samples.size() <= max_samples) {
    const size_t begin = samples.size();
    samples.resize(begin + kChunkSamples);
    ma_uint64 num_read = 0;
    const ma_result result =
        ma_decoder_read_pcm_frames(&decoder, samples.data() + begin, kChunkSamples, &num_read);
    samples.resize(begin + num_read);
    if (result != MA_SUCCESS && result != MA_AT_END) return undecodable();
    if (result == MA_AT_END || num_read == 0) break;
  }
  if (samples.size() > max_samples) {
    return Status(StatusCode::kInvalidRequest, "the sounds of the request are too long together");
  }
  if (samples.size() < 2) return undecodable();
  return samples;
}

}  // namespace snapllm
