#include "backend/fingerprint.h"

#include <stdlib.h>
#include <unistd.h>

#include <string>

#include "check.h"

namespace snapllm {
namespace {

class TempFile {
 public:
  TempFile() {
    const int file = mkstemp(path_.data());
    REQUIRE(file >= 0 && write(file, "model", 5) == 5 && close(file) == 0);
  }
  ~TempFile() { unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = "/tmp/snapllm_XXXXXX";
};

TEST(fingerprint, kv_of_other_kernels_or_other_vectors_is_not_the_same) {
  const TempFile file;
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
