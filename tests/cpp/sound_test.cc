// Sounds from files that lie about their length.
#include "backend/sound.h"

#include <cstring>
#include <string>

#include "check.h"

namespace snapllm {
namespace {

constexpr int32_t kRate = 16'000;
constexpr size_t kMinute = 60 * kRate;

template <typename Number>
std::string bytes_of(Number number) {
  std::string bytes(sizeof number, '\0');
  std::memcpy(bytes.data(), &number, sizeof number);
  return bytes;
}

// 16 bits, one channel; `said_bytes` is what the header has of the data.
std::string wav(size_t num_samples, uint32_t said_bytes) {
  const std::string format = bytes_of(uint16_t{1}) + bytes_of(uint16_t{1}) + bytes_of(uint32_t{kRate}) +
                             bytes_of(uint32_t{2 * kRate}) + bytes_of(uint16_t{2}) +
                             bytes_of(uint16_t{16});
  return "RIFF" + bytes_of(said_bytes + 36) + "WAVEfmt " + bytes_of(uint32_t{16}) + format + "data" +
         bytes_of(said_bytes) + std::string(2 * num_samples, '\x11');
}

// Frames of silence, 128 kbit/s at 44.1 kHz; with `said_frames` the first says that there are so many.
std::string mp3(int num_frames, uint32_t said_frames) {
  std::string file;
  for (int i = 0; i < num_frames; ++i) {
    std::string frame("\xFF\xFB\x90\xC4", 4);
    frame.resize(417, '\0');
    if (i == 0 && said_frames > 0) {
      // Behind the side information of one channel.
      const std::string count{static_cast<char>(said_frames >> 24), static_cast<char>(said_frames >> 16),
                              static_cast<char>(said_frames >> 8), static_cast<char>(said_frames)};
      frame.replace(4 + 17, 12, "Xing" + std::string("\0\0\0\x01", 4) + count);
    }
    file += frame;
  }
  return file;
}

TEST(sound, a_sound_has_the_samples_that_are_there) {
  CHECK_EQ(decode_sound(wav(kRate, 2 * kRate), kRate, kMinute).value().size(), kRate);
  const auto at_half_the_rate = decode_sound(wav(kRate, 2 * kRate), kRate / 2, kMinute);
  CHECK(at_half_the_rate.value().size() >= kRate / 2 - 16);
  CHECK(at_half_the_rate.value().size() <= kRate / 2 + 16);
  const size_t num_samples = decode_sound(mp3(100, 0), kRate, kMinute).value().size();
  CHECK(num_samples > 2 * kRate && num_samples < 3 * kRate);  // 2.6 s
}

TEST(sound, a_length_that_is_only_said_takes_no_memory) {
  CHECK_EQ(decode_sound(wav(kRate, 0x7FFF'FFF0), kRate, kMinute).value().size(), kRate);
  const auto said = decode_sound(mp3(100, 0xFFFF'FFFF), kRate, kMinute);
  CHECK(said.ok() && said.value().size() < 3 * kRate);
}

TEST(sound, what_is_too_long_is_refused) {
  CHECK(decode_sound(wav(kRate, 2 * kRate), kRate, kRate).ok());
  CHECK_EQ(decode_sound(wav(kRate, 2 * kRate), kRate, kRate - 1).status().code(),
           StatusCode::kInvalidRequest);
}

TEST(sound, what_is_no_sound_is_refused) {
  for (const std::string& file : {std::string(), std::string("RIFF"), std::string(5000, 'x'), wav(0, 0)}) {
    CHECK_EQ(decode_sound(file, kRate, kMinute).status().code(), StatusCode::kInvalidRequest);
  }
}

}  // namespace
}  // namespace snapllm
