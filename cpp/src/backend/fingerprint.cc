#include "backend/fingerprint.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "backend/gguf_file.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "llama.h"

namespace snapllm {
namespace {

// Norms, biases and the like: what tells models apart that have the large matrices in common.
constexpr uint64_t kWholeBytes = 64 << 10;
constexpr uint64_t kSampleBytes = 4096;
// Of a larger tensor, from its beginning to its end. Each may be a seek of a disk: where there are
// many tensors they are fewer.
constexpr uint64_t kMaxSamples = 8;
constexpr uint64_t kMinSamples = 2;
constexpr uint64_t kSamplesInAll = 1024;

}  // namespace

Result<Hash128> file_fingerprint(const std::string& path, const Hash128& parent) {
  const auto gguf = GgufFile::open(path);
  if (!gguf.ok()) return gguf.status();
  const uint64_t size = gguf.value().file_bytes();
  Hash128 hash = hash128(&size, sizeof size, parent);
  std::ifstream file(path, std::ios::binary);
  std::vector<char> buffer;
  const auto add = [&](uint64_t offset, uint64_t count) {
    buffer.resize(count);
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(buffer.data(), static_cast<std::streamsize>(count));
    hash = hash128(buffer.data(), buffer.size(), hash);
  };
  add(0, gguf.value().head().size);
  const auto tensors = gguf.value().tensors();
  const auto num_large = static_cast<uint64_t>(
      std::ranges::count_if(tensors, [](const auto& each) { return each.size > kWholeBytes; }));
  const uint64_t num_samples =
      std::clamp(kSamplesInAll / std::max<uint64_t>(num_large, 1), kMinSamples, kMaxSamples);
  for (const auto [offset, num_bytes] : tensors) {
    if (num_bytes <= kWholeBytes) {
      add(offset, num_bytes);
      continue;
    }
    const uint64_t last = num_bytes - kSampleBytes;
    for (uint64_t i = 0; i < num_samples; ++i) {
      add(offset + last * i / (num_samples - 1), kSampleBytes);
    }
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
