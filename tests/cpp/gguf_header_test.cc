#include "backend/gguf_header.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>

#include "check.h"

namespace snapllm {
namespace {

// Type numbers of the format (ggml's gguf.h and ggml.h).
enum : uint32_t { kTypeU16 = 2, kTypeU32 = 4, kTypeI32 = 5, kTypeF32 = 6, kTypeString = 8, kTypeArray = 9 };
enum : uint32_t { kTensorF32 = 0, kTensorF16 = 1, kTensorI32 = 26, kTensorF64 = 28 };
constexpr uint64_t kTensorBytes = 64 * 4;

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "snapllm_XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

class Bytes {
 public:
  template <typename T>
  Bytes& number(T value) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    data_.append(raw, sizeof(T));
    return *this;
  }
  Bytes& raw(std::string_view text) {
    data_ += text;
    return *this;
  }
  Bytes& string(std::string_view text) { return number<uint64_t>(text.size()).raw(text); }
  Bytes& u32(const std::string& key, uint32_t value) {
    return string(key).number(kTypeU32).number(value);
  }
  Bytes& pad(size_t alignment) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  const std::string& data() const { return data_; }

 private:
  std::string data_;
};

// A llama of one tensor; each test breaks one of its fields.
struct Gguf {
  uint32_t version = 3;
  std::optional<uint64_t> num_tensors, num_values;  // where they are to be wrong
  bool has_tensor = true;
  uint32_t num_layers = 2;
  std::string architecture = "llama";
  std::function<void(Bytes&)> kv_heads = [](Bytes& b) { b.number(kTypeU32).number<uint32_t>(2); };
  uint32_t embedding = 64;
  uint64_t tensor_length = 64;
  uint64_t tensor_offset = 0;
  std::string tensor_name = "output.weight";
  uint32_t tensor_type = kTensorF32;
  std::function<void(Bytes&)> more;  // one more value
  uint16_t part = 0, num_parts = 0;  // 0 parts: it does not say

  std::string bytes() const {
    Bytes b;
    b.raw("GGUF").number(version);
    b.number(num_tensors.value_or(has_tensor ? 1 : 0));
    b.number(num_values.value_or((num_parts > 0 ? 9 : 7) + (more ? 1 : 0)));
    b.string("general.architecture").number(kTypeString).string(architecture);
    b.string("general.name").number(kTypeString).string("Tiny");
    b.u32("llama.block_count", num_layers);
    b.u32("llama.context_length", 2048);
    b.u32("llama.embedding_length", embedding);
    b.u32("llama.attention.head_count", 4);
    kv_heads(b.string("llama.attention.head_count_kv"));
    if (more) more(b);
    if (num_parts > 0) {
      b.string("split.no").number<uint32_t>(kTypeU16).number(part);
      b.string("split.count").number<uint32_t>(kTypeU16).number(num_parts);
    }
    if (has_tensor) {
      b.string(tensor_name).number<uint32_t>(1).number(tensor_length);
      b.number(tensor_type).number(tensor_offset);
    }
    b.pad(32);
    return b.raw(std::string(has_tensor ? kTensorBytes : 0, 'w')).data();
  }
};

Result<GgufHeader> read_bytes(const std::string& bytes) {
  const TempFolder folder;
  std::ofstream(folder.file("m.gguf"), std::ios::binary) << bytes;
  return read_gguf_header(folder.file("m.gguf"));
}

void check_refused(const std::string& bytes, const std::string& reason) {
  const auto header = read_bytes(bytes);
  REQUIRE(!header.ok());
  CHECK_EQ(header.status().code(), StatusCode::kInvalidModel);
  if (header.status().message().find(reason) == std::string::npos) {
    CHECK_EQ(header.status().message(), "... " + reason + " ...");
  }
}

TEST(gguf_header, facts_of_a_valid_file) {
  const std::string bytes = Gguf{}.bytes();
  const auto header = read_bytes(bytes);
  REQUIRE(header.ok());
  CHECK_EQ(header.value().architecture, "llama");
  CHECK_EQ(header.value().name, "Tiny");
  CHECK_EQ(header.value().file_bytes, bytes.size());
  CHECK_EQ(header.value().num_layers, 2);
  CHECK_EQ(header.value().train_context_size, 2048);
  // 2 layers of 2 KV heads of 16 values, for K and for V
  CHECK_EQ(header.value().kv_elements_per_token, 2 * 2 * 16 * 2);
}

TEST(gguf_header, kv_heads_per_layer_count_as_the_largest) {
  Gguf gguf;
  gguf.kv_heads = [](Bytes& b) {
    b.number(kTypeArray).number(kTypeI32).number<uint64_t>(2);
    b.number<int32_t>(1).number<int32_t>(4);
  };
  const auto header = read_bytes(gguf.bytes());
  REQUIRE(header.ok());
  CHECK_EQ(header.value().kv_elements_per_token, 2 * 4 * 16 * 2);
}

TEST(gguf_header, missing_file_and_folder_are_not_found) {
  const TempFolder folder;
  CHECK_EQ(read_gguf_header(folder.file("none")).status().code(), StatusCode::kFileNotFound);
  CHECK_EQ(read_gguf_header(folder.file("")).status().code(), StatusCode::kFileNotFound);
}

TEST(gguf_header, pipe_is_refused_without_being_opened) {
  const TempFolder folder;
  REQUIRE(mkfifo(folder.file("pipe").c_str(), 0600) == 0);
  CHECK_EQ(read_gguf_header(folder.file("pipe")).status().code(), StatusCode::kInvalidModel);
}

TEST(gguf_header, empty_and_foreign_files_are_refused) {
  check_refused("", "empty");
  check_refused("GG", "not a GGUF file");
  check_refused(std::string(4096, '\0'), "not a GGUF file");
  check_refused("PK\x03\x04" + std::string(100, 'x'), "not a GGUF file");
}

TEST(gguf_header, file_cut_anywhere_is_refused) {
  const std::string bytes = Gguf{}.bytes();
  for (size_t size = 4; size < bytes.size(); size += size < 400 ? 1 : 37) {
    check_refused(bytes.substr(0, size), "");
  }
  check_refused(bytes.substr(0, bytes.size() - 1), "truncated");
}

TEST(gguf_header, unknown_versions_are_refused) {
  for (const uint32_t version : {0u, 1u, 99u, 0x03000000u}) {
    Gguf gguf;
    gguf.version = version;
    check_refused(gguf.bytes(), "damaged");
  }
}

TEST(gguf_header, counts_that_the_file_cannot_hold_are_refused) {
  for (const uint64_t count : {uint64_t{99}, uint64_t{1} << 40, uint64_t{1} << 62, UINT64_MAX}) {
    Gguf tensors, values;
    tensors.num_tensors = count;
    check_refused(tensors.bytes(), "damaged");
    values.num_values = count;
    check_refused(values.bytes(), "damaged");
  }
}

TEST(gguf_header, lengths_that_the_file_cannot_hold_are_refused) {
  for (const uint64_t length : {uint64_t{1} << 20, uint64_t{1} << 40, UINT64_MAX}) {
    Bytes text;
    text.raw("GGUF").number<uint32_t>(3).number<uint64_t>(1).number<uint64_t>(1);
    text.string("general.architecture").number(kTypeString).number(length).raw("llama");
    check_refused(text.data(), "");
    Gguf array;
    array.kv_heads = [&](Bytes& b) { b.number(kTypeArray).number(kTypeI32).number(length); };
    check_refused(array.bytes(), "");
  }
}

TEST(gguf_header, tensors_outside_the_file_are_refused) {
  Gguf longer;
  longer.tensor_length = 65;
  check_refused(longer.bytes(), "output.weight lies past its end");
  for (const uint64_t offset : {uint64_t{32}, uint64_t{1} << 50, UINT64_MAX - 31}) {
    Gguf moved;
    moved.tensor_offset = offset;
    check_refused(moved.bytes(), "");
  }
  for (const uint64_t length : {uint64_t{1} << 40, uint64_t{1} << 62, UINT64_MAX}) {
    Gguf huge;
    huge.tensor_length = length;
    check_refused(huge.bytes(), "");
  }
  Gguf none;
  none.has_tensor = false;
  check_refused(none.bytes(), "no tensors");
}

TEST(gguf_header, facts_out_of_range_are_refused) {
  for (const uint32_t num_layers : {0u, 513u, UINT32_MAX}) {
    Gguf gguf;
    gguf.num_layers = num_layers;
    check_refused(gguf.bytes(), "block_count");
  }
  Gguf wide, nameless, other;
  wide.embedding = UINT32_MAX;
  check_refused(wide.bytes(), "dimension");
  nameless.architecture = "";
  check_refused(nameless.bytes(), "general.architecture");
  other.architecture = "gemma";  // its own keys are missing
  check_refused(other.bytes(), "gemma.block_count");
}

TEST(gguf_header, what_ggml_would_abort_on_in_a_computation_is_refused) {
  const auto with = [](const std::function<void(Bytes&)>& more) {
    Gguf gguf;
    gguf.more = more;
    return gguf.bytes();
  };
  for (const float epsilon : {-1.0f, -INFINITY, NAN}) {
    for (const char* name : {"layer_norm", "layer_norm_rms", "group_norm"}) {
      const std::string key = std::string("llama.attention.") + name + "_epsilon";
      check_refused(with([&](Bytes& b) { b.string(key).number(kTypeF32).number(epsilon); }), key);
    }
  }
  for (const uint32_t pooling : {5u, 1u << 31}) {
    const std::string key = "llama.pooling_type";
    check_refused(with([&](Bytes& b) { b.u32(key, pooling); }), key);
  }
  for (const uint32_t pooling : {0u, 4u, UINT32_MAX}) {
    CHECK(read_bytes(with([&](Bytes& b) { b.u32("llama.pooling_type", pooling); })).ok());
  }
  // Of heads of 16 numbers.
  for (const uint32_t count : {15u, 18u, 1u << 31}) {
    for (const char* key : {"llama.rope.dimension_count", "llama.rope.dimension_count_swa"}) {
      check_refused(with([&](Bytes& b) { b.u32(key, count); }), "llama.rope.dimension_count");
    }
  }
  CHECK(read_bytes(with([](Bytes& b) { b.u32("llama.rope.dimension_count", 16); })).ok());
  const auto sections = [&](int32_t first, int32_t second) {
    return with([&](Bytes& b) {
      b.string("llama.rope.dimension_sections").number(kTypeArray).number(kTypeI32);
      b.number<uint64_t>(2).number(first).number(second);
    });
  };
  check_refused(sections(8, 9), "llama.rope.dimension_sections");
  check_refused(sections(1, -1), "llama.rope.dimension_sections");
  const auto header = read_bytes(sections(8, 8));
  REQUIRE(header.ok());
  CHECK(header.value().has_rope_sections);
}

TEST(gguf_header, weights_of_types_that_ggml_computes_nothing_with_are_refused) {
  Gguf gguf;
  for (const uint32_t type : {kTensorI32, kTensorF64}) {
    gguf.tensor_type = type;
    gguf.tensor_length = kTensorBytes / 8;
    check_refused(gguf.bytes(), "output.weight is of type");
  }
  gguf.tensor_type = kTensorI32;
  gguf.tensor_name = "blk.0.ffn_gate_tid2eid.weight";
  CHECK(read_bytes(gguf.bytes()).ok());
}

TEST(gguf_header, norms_and_biases_of_other_types_than_f32_are_named) {
  Gguf gguf;
  gguf.tensor_type = kTensorF16;
  CHECK_EQ(read_bytes(gguf.bytes()).value().odd_vector, "");
  for (const char* name : {"output_norm.weight", "blk.0.attn_q.bias", "token_types.weight",
                           "blk.0.ssm_a", "blk.0.ssm_b_norm"}) {
    gguf.tensor_name = name;
    CHECK_EQ(read_bytes(gguf.bytes()).value().odd_vector, name);
    gguf.tensor_type = kTensorF32;
    CHECK_EQ(read_bytes(gguf.bytes()).value().odd_vector, "");
    gguf.tensor_type = kTensorF16;
  }
}

TEST(gguf_header, facts_of_a_split_model_are_those_of_all_its_parts) {
  const TempFolder folder;
  Gguf first, second;
  first.num_parts = second.num_parts = 2;
  first.has_tensor = false;  // metadata alone
  second.part = 1;
  const std::string paths[] = {folder.file("m-00001-of-00002.gguf"),
                               folder.file("m-00002-of-00002.gguf")};
  std::ofstream(paths[0], std::ios::binary) << first.bytes();
  CHECK_EQ(read_gguf_header(paths[0]).status().code(), StatusCode::kFileNotFound);
  std::ofstream(paths[1], std::ios::binary) << second.bytes();
  const auto header = read_gguf_header(paths[0]);
  REQUIRE(header.ok());
  CHECK_EQ(header.value().paths.size(), size_t{2});
  CHECK_EQ(header.value().paths[1], paths[1]);
  CHECK_EQ(header.value().file_bytes, first.bytes().size() + second.bytes().size());
  CHECK(header.value().types == std::vector<ggml_type>{GGML_TYPE_F32});
  CHECK_EQ(read_gguf_header(paths[1]).status().code(), StatusCode::kInvalidModel);
}

TEST(gguf_header, parts_that_are_not_of_one_model_are_refused) {
  Gguf huge;
  huge.num_parts = UINT16_MAX;
  check_refused(huge.bytes(), "NAME-00001-of-65535.gguf");
  huge.part = UINT16_MAX;
  check_refused(huge.bytes(), "part 65536 of 65535");
  const TempFolder folder;
  Gguf first, second;
  first.num_parts = 2;
  second.num_parts = 3;
  second.part = 1;
  std::ofstream(folder.file("m-00001-of-00002.gguf"), std::ios::binary) << first.bytes();
  std::ofstream(folder.file("m-00002-of-00002.gguf"), std::ios::binary) << second.bytes();
  const auto header = read_gguf_header(folder.file("m-00001-of-00002.gguf"));
  REQUIRE(!header.ok());
  CHECK(header.status().message().find("not the part that its name says") != std::string::npos);
}

}  // namespace
}  // namespace snapllm
