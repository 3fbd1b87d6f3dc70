// Copies past the caches copy every byte, and no other.
#include "kernels/large_copy.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "check.h"

namespace snapllm {
namespace {

TEST(large_copy, copies_what_it_is_told_wherever_it_lies) {
  constexpr size_t kRoom = 64;
  std::vector<uint8_t> from(8192);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint8_t>(i * 31 + i / 256);
  for (const size_t size : {0, 1, 63, 64, 200, 4095, 4096, 4097, 4159, 4160, 5000}) {
    for (size_t to_at = 0; to_at < kRoom; ++to_at) {
      for (const size_t from_at : {0, 1, 16, 31}) {
        std::vector<uint8_t> to(size + 2 * kRoom, 0);
        std::vector<uint8_t> expected = to;
        std::copy_n(from.begin() + static_cast<ptrdiff_t>(from_at), size,
                    expected.begin() + static_cast<ptrdiff_t>(to_at));
        copy_past_caches(to.data() + to_at, from.data() + from_at, size);
        CHECK(to == expected);
      }
    }
  }
}

}  // namespace
}  // namespace snapllm
