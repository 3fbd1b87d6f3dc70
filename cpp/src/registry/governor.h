// The memory governor: what fits beside what, and who goes when something does not.
// Pure functions over values; the caller holds whatever lock keeps the values true.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace snapllm {

// What one model takes of the memory.
struct Charge {
  std::string weights_key;     // models of one key share their weights
  uint64_t weights_bytes = 0;
  uint64_t own_bytes = 0;      // KV memory and compute buffers
};

// One model in memory, or on its way in or out.
struct Holding {
  std::string id;
  Charge charge;
  double rebuild_ms = 0.0;  // what loading it again takes
  double idle_s = 0.0;      // since it was last used
  bool pinned = false;
  bool in_use = false;  // by a request, or by whoever holds a lease, as for the length of a call
  bool has_requests = false;  // that run or wait
  bool moving = false;  // loading or leaving: its memory cannot be disposed of
  bool loading = false;  // what it is charged may not be allocated yet
};

// The KV of prompts kept in RAM. It gives way to models, down to `least_bytes`.
struct SnapshotMemory {
  uint64_t bytes = 0;
  uint64_t least_bytes = 0;
};

// Memory that is spoken for besides the models.
struct MemoryUse {
  uint64_t budget_bytes = 0;
  uint64_t snapshot_bytes = 0;  // KV kept in RAM that does not give way
  uint64_t external_bytes = 0;  // image models and the like
};

// Bytes that the holdings take together; shared weights count once.
uint64_t charged_bytes(std::span<const Holding> holdings);

// Whether the holdings have weights of that key.
bool has_weights(std::span<const Holding> holdings, std::string_view weights_key);

// What the budget leaves beside the holdings and the rest.
uint64_t free_bytes(std::span<const Holding> holdings, const MemoryUse& use);

// What of the budget the machine can give. Its `available_bytes` may be more than what is free of
// the budget, or less: others use it, too. What a load under way was granted is part of them until
// it is allocated; how far it has come is not known.
struct MachineBudget {
  uint64_t most_bytes = 0;
  uint64_t certain_bytes = 0;  // when loads under way have allocated nothing yet
};
MachineBudget machine_budget(std::span<const Holding> holdings, const MemoryUse& use,
                             uint64_t kept_snapshot_bytes, uint64_t available_bytes);

// The holdings as they may be soon: what comes or goes is idle then, or gone, and, where
// `leases_end`, so is what no request is of.
std::vector<Holding> at_rest(std::span<const Holding> holdings, bool leases_end);

enum class Victims { kIdle, kIdleAndBusy };

// The ids of the models to evict so that at least `missing_bytes` are freed: those whose
// rebuilding costs least per byte, the longer unused the cheaper; busy ones, where they
// are allowed, only after all idle ones. Never one that is pinned or moving, and none
// that is not needed. Nothing when all of them together would not do.
std::optional<std::vector<std::string>> choose_victims(std::span<const Holding> holdings,
                                                       uint64_t missing_bytes, Victims allowed);

// "1.5 GiB"; for messages.
std::string format_bytes(uint64_t bytes);

// What of a text model there can be less of.
inline constexpr std::string_view kSmallerContext = "a smaller context";

// Why `needed_bytes` cannot be had, who holds the memory, and what would help: less of what is
// asked for (`less`; empty where there is no less of it) among that.
std::string explain_refusal(std::string_view what, uint64_t needed_bytes,
                            std::span<const Holding> holdings, const MemoryUse& use,
                            std::string_view less);

}  // namespace snapllm
