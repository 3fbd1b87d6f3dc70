#include "backend/fingerprint.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>

#include "check.h"
#include "ggml.h"
#include "gguf.h"

namespace snapllm {
namespace {

constexpr int64_t kSmall = 1024;       // numbers of a norm
constexpr int64_t kLarge = 1024 * 1024;  // of a matrix

// A model file of norms between matrices, of which one number may be another.
class ModelFile {
 public:
  explicit ModelFile(int64_t changed_tensor = -1, int64_t changed_number = 0) {
    const int file = mkstemp(path_.data());
    REQUIRE(file >= 0 && close(file) == 0);
    const std::unique_ptr<ggml_context, decltype(&ggml_free)> context(
        ggml_init({size_t{32} << 20, nullptr, false}), &ggml_free);
    const std::unique_ptr<gguf_context, decltype(&gguf_free)> gguf(gguf_init_empty(), &gguf_free);
    for (int64_t i = 0; i < 6; ++i) {
      ggml_tensor* tensor =
          ggml_new_tensor_1d(context.get(), GGML_TYPE_F32, i % 2 == 0 ? kLarge : kSmall);
      ggml_set_name(tensor, ("tensor" + std::to_string(i)).c_str());
      auto* numbers = static_cast<float*>(tensor->data);
      std::fill_n(numbers, ggml_nelements(tensor), 1.0f);
      if (i == changed_tensor) numbers[changed_number] = 2;
      gguf_add_tensor(gguf.get(), tensor);
    }
    REQUIRE(gguf_write_to_file(gguf.get(), path_.c_str(), /*only_meta=*/false));
  }
  ~ModelFile() { unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = "/tmp/snapllm_XXXXXX";
};

TEST(fingerprint, a_file_with_one_other_number_in_a_norm_is_another) {
  const Hash128 plain = file_fingerprint(ModelFile().path()).value();
  CHECK(file_fingerprint(ModelFile().path()).value() == plain);
  for (const int64_t number : {int64_t{0}, kSmall / 2, kSmall - 1}) {
    CHECK(file_fingerprint(ModelFile(5, number).path()).value() != plain);
  }
}

TEST(fingerprint, every_matrix_counts_from_its_beginning_to_its_end) {
  const Hash128 plain = file_fingerprint(ModelFile().path()).value();
  for (const int64_t tensor : {0, 2, 4}) {
    CHECK(file_fingerprint(ModelFile(tensor, 0).path()).value() != plain);
    CHECK(file_fingerprint(ModelFile(tensor, kLarge - 1).path()).value() != plain);
  }
}

TEST(fingerprint, what_is_no_model_file_has_none) {
  CHECK(!file_fingerprint("/nonexistent").ok());
}

TEST(fingerprint, kv_of_other_kernels_or_other_vectors_is_not_the_same) {
  const ModelFile file;
  const ModelOptions options;
  const auto of = [&](std::string_view attention, std::string_view vectors) {
    return kv_fingerprint({file.path()}, options, attention, vectors).value();
  };
  CHECK(of("own", "avx2") == of("own", "avx2"));
  CHECK(of("own", "avx2") != of("own", "avx512"));
  CHECK(of("own", "avx2") != of("plain", "avx2"));
  CHECK(kv_fingerprint({file.path()}, options, "own").value() == of("own", cpu_vectors()));
}

}  // namespace
}  // namespace snapllm
