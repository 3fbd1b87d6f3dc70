// The bounds of the KV store: as the engine's options say, or chosen.
#pragma once

#include <cstdint>

#include "snapllm/options.h"
#include "store/kv_store.h"

namespace snapllm {

// The bound of the cold tier when none is given. What the store holds already is counted as
// free: the bound must not shrink as the store fills, nor from one start to the next.
uint64_t auto_disk_bytes(uint64_t available, uint64_t held);

KvStoreOptions store_options(const EngineOptions& options);

}  // namespace snapllm
