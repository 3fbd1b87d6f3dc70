// The file of one piece. docs/store_format.md gives every byte.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/file_env.h"
#include "store/piece.h"

namespace snapllm {

inline constexpr uint32_t kPieceFormatVersion = 1;

struct PieceFile {
  PieceId piece;
  uint64_t state_bytes = 0;
  uint64_t state_checksum = 0;  // XXH64
  uint64_t state_offset = 0;
};

// Name of the file within the folder of its fingerprint.
std::string piece_file_name(const Hash128& key);
// The key in such a name; nothing where it is another's.
std::optional<Hash128> piece_key_of(std::string_view file_name);

uint64_t piece_file_bytes(const PieceId& piece, uint64_t state_bytes);

Status write_piece_file(FileEnv& env, const std::string& path, const Hash128& fingerprint,
                        const PieceId& piece, const StateBytes& state);

// Reads and checks everything but the state. Fails with kFileDamaged on a file that is
// damaged, foreign, not as long as it says or not there, and with kStorageFailed on one that
// cannot be read.
Result<PieceFile> read_piece_header(FileEnv& env, const std::string& path, uint64_t file_bytes,
                                    const Hash128& fingerprint);

// Reads the state and checks that it is the one of `piece`. Fails as read_piece_header does, with
// kStorageFailed also where memory cannot hold it.
Result<StatePtr> read_piece_state(FileEnv& env, const std::string& path, uint64_t file_bytes,
                                  const Hash128& fingerprint, const PieceId& piece);

}  // namespace snapllm
