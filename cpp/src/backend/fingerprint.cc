#include "backend/fingerprint.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "ggml-cpu.h"
#include "ggml.h"
#include "llama.h"

namespace snapllm {
namespace {

constexpr uint64_t kHeadBytes = uint64_t{4} << 20;
constexpr uint64_t kSampleBytes = 4096;
constexpr uint64_t kNumSamples = 256;

}  // namespace

Result<Hash128> file_fingerprint(const std::string& path, const Hash128& parent) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const auto size = static_cast<uint64_t>(std::max<std::streamoff>(file.tellg(), 0));
  Hash128 hash = hash128(&size, sizeof size, parent);
  std::vector<char> buffer;
  const auto add = [&](uint64_t offset, uint64_t count) {
    buffer.resize(std::min(count, size - offset));
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    hash = hash128(buffer.data(), buffer.size(), hash);
  };
  add(0, kHeadBytes);
  if (size > kHeadBytes) {
    const uint64_t stride = std::max((size - kHeadBytes) / kNumSamples, kSampleBytes);
    for (uint64_t offset = kHeadBytes; offset < size; offset += stride) add(offset, kSampleBytes);
  }
  if (!file) return Status(StatusCode::kFileNotFound, "Model file cannot be read: " + path);
  return hash;
}

std::string_view cpu_vectors() {
  if (ggml_cpu_has_avx512() != 0) return ggml_cpu_has_avx512_vnni() != 0 ? "avx512 vnni" : "avx512";
  if (ggml_cpu_has_avx2() != 0) return "avx2";
  return ggml_cpu_has_neon() != 0 ? "neon" : "narrow";
}

Result<Hash128> kv_fingerprint(const std::vector<std::string>& paths, const ModelOptions& options,
                               std::string_view attention, std::string_view vectors) {
  // Not of the projector: it computes no text, and what it shows is in the virtual tokens.
  Hash128 weights;
  for (const std::string& path : paths) {
    const auto with_file = file_fingerprint(path, weights);
    if (!with_file.ok()) return with_file.status();
    weights = with_file.value();
  }
  const bool on_gpu = llama_supports_gpu_offload() && options.gpu_layers != 0;
  const std::string settings = options.kv_type + " " + std::string(attention) + " " +
                               std::string(vectors) + (on_gpu ? " gpu" : " cpu") + " ggml " + ggml_version() + " state " +
                               std::to_string(LLAMA_STATE_SEQ_VERSION);
  return hash128(settings.data(), settings.size(), weights);
}

}  // namespace snapllm
