#include "store/piece_file.h"

#include <array>
#include <cstring>
#include <new>

namespace snapllm {
namespace {

constexpr std::array<char, 8> kMagic = {'S', 'N', 'A', 'P', 'K', 'V', '\r', '\n'};
constexpr std::string_view kSuffix = ".kv";
constexpr int32_t kMaxTokens = 1 << 24;
// States begin at a multiple of this, so that they can be read or mapped in place.
constexpr uint64_t kStateAlignment = 64;

// As on disk: little-endian, no padding.
struct Header {
  std::array<char, 8> magic = kMagic;
  uint32_t version = kPieceFormatVersion;
  uint32_t kind = 0;
  Hash128 fingerprint;
  Hash128 key;
  Hash128 parent;
  int32_t begin = 0;
  int32_t end = 0;
  uint64_t state_bytes = 0;
  uint64_t state_checksum = 0;
  uint64_t header_checksum = 0;  // of the fields above, then the tokens
};
static_assert(sizeof(Header) == 96);

uint64_t state_offset(int32_t num_tokens) {
  const uint64_t end = sizeof(Header) + sizeof(Token) * static_cast<uint64_t>(num_tokens);
  return (end + kStateAlignment - 1) / kStateAlignment * kStateAlignment;
}

uint64_t header_checksum(const Header& header, const std::vector<Token>& tokens) {
  const uint64_t fields = xxh64(&header, offsetof(Header, header_checksum));
  return xxh64(tokens.data(), tokens.size() * sizeof(Token), fields);
}

Status bad_file(const std::string& path, const char* what) {
  return {StatusCode::kFileDamaged, path + ": " + what};
}

}  // namespace

std::string piece_file_name(const Hash128& key) { return key.hex() + std::string(kSuffix); }

std::optional<Hash128> piece_key_of(std::string_view file_name) {
  if (!file_name.ends_with(kSuffix)) return std::nullopt;
  const auto key = hash128_of_hex(file_name.substr(0, file_name.size() - kSuffix.size()));
  return key && piece_file_name(*key) == file_name ? key : std::nullopt;
}

uint64_t piece_file_bytes(const PieceId& piece, uint64_t state_bytes) {
  return state_offset(piece.end - piece.begin) + state_bytes;
}

Status write_piece_file(FileEnv& env, const std::string& path, const Hash128& fingerprint,
                        const PieceId& piece, const StateBytes& state) {
  Header header;
  header.kind = static_cast<uint32_t>(piece.kind);
  header.fingerprint = fingerprint;
  header.key = piece.key;
  header.parent = piece.parent;
  header.begin = piece.begin;
  header.end = piece.end;
  header.state_bytes = state.size();
  header.state_checksum = xxh64(state.data(), state.size());
  header.header_checksum = header_checksum(header, piece.tokens);
  const size_t token_bytes = piece.tokens.size() * sizeof(Token);
  const std::array<char, kStateAlignment> padding{};
  return env.write(path, {{&header, sizeof header},
                          {piece.tokens.data(), token_bytes},
                          {padding.data(), state_offset(piece.end - piece.begin) - sizeof header - token_bytes},
                          {state.data(), state.size()}});
}

Result<PieceFile> read_piece_header(FileEnv& env, const std::string& path, uint64_t file_bytes,
                                    const Hash128& fingerprint) {
  Header header;
  if (file_bytes < sizeof header) return bad_file(path, "too short");
  if (Status status = env.read(path, 0, &header, sizeof header); !status.ok()) return status;
  if (header.magic != kMagic) return bad_file(path, "not a KV piece");
  if (header.version != kPieceFormatVersion) return bad_file(path, "another format version");
  if (header.fingerprint != fingerprint) return bad_file(path, "of another model");
  if (header.kind > 1 || header.begin < 0 || header.end <= header.begin ||
      header.end - header.begin > kMaxTokens) {
    return bad_file(path, "damaged header");
  }
  const uint64_t offset = state_offset(header.end - header.begin);
  // In two steps, since the sum could overflow.
  if (file_bytes < offset || file_bytes - offset != header.state_bytes) {
    return bad_file(path, "truncated");
  }
  PieceFile file;
  file.piece.key = header.key;
  file.piece.parent = header.parent;
  file.piece.kind = static_cast<KvKind>(header.kind);
  file.piece.begin = header.begin;
  file.piece.end = header.end;
  file.piece.tokens.resize(static_cast<size_t>(header.end - header.begin));
  const size_t token_bytes = file.piece.tokens.size() * sizeof(Token);
  if (Status status = env.read(path, sizeof header, file.piece.tokens.data(), token_bytes);
      !status.ok()) {
    return status;
  }
  if (header_checksum(header, file.piece.tokens) != header.header_checksum) {
    return bad_file(path, "damaged header");
  }
  if (hash128(file.piece.tokens.data(), token_bytes, header.parent) != header.key) {
    return bad_file(path, "key and tokens do not belong together");
  }
  file.state_bytes = header.state_bytes;
  file.state_checksum = header.state_checksum;
  file.state_offset = offset;
  return file;
}

Result<StatePtr> read_piece_state(FileEnv& env, const std::string& path, uint64_t file_bytes,
                                  const Hash128& fingerprint, const PieceId& piece) {
  auto file = read_piece_header(env, path, file_bytes, fingerprint);
  if (!file.ok()) return file.status();
  const PieceFile& header = file.value();
  if (header.piece.key != piece.key || header.piece.tokens != piece.tokens) {
    return bad_file(path, "of another piece");
  }
  std::shared_ptr<StateBytes> state;
  try {
    state = std::make_shared<StateBytes>(header.state_bytes);
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kStorageFailed,
                  path + ": no memory for its " + std::to_string(header.state_bytes) + " bytes");
  }
  if (Status status = env.read(path, header.state_offset, state->data(), state->size());
      !status.ok()) {
    return status;
  }
  if (xxh64(state->data(), state->size()) != header.state_checksum) {
    return bad_file(path, "damaged state");
  }
  return StatePtr(std::move(state));
}

}  // namespace snapllm
