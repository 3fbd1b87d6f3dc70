#include "registry/room.h"

#include <algorithm>
#include <limits>

namespace snapllm {
namespace {

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();
// Tokens worth another model's place, and those a model is of some use with.
constexpr int32_t kUsefulContext = 4096;
constexpr int32_t kLeastContext = 512;

// The options with a context of at most `tokens` where they leave it open.
ModelOptions with_context(ModelOptions options, int32_t tokens, int32_t train_context) {
  if (options.context_size == 0) {
    options.context_size = train_context > 0 ? std::min(tokens, train_context) : tokens;
    if (options.kv_cells > 0) options.context_size = std::min(options.context_size, options.kv_cells);
  }
  if (options.kv_cells == 0) options.kv_cells = options.context_size;
  return options;
}

}  // namespace

Result<RoomChoice> choose_room(const std::string& model_id, const ModelOptions& options,
                               const std::optional<ModelInfo>& last,
                               std::span<const Holding> holdings, const MemoryUse& use,
                               Victims allowed, const PlanFunction& plan) {
  const auto whole = plan(options, kNoLimit);
  if (!whole.ok()) return whole.status();
  const bool is_shared = has_weights(holdings, whole.value().weights_key);
  const uint64_t shared_bytes = is_shared ? whole.value().weights_bytes : 0;
  const uint64_t free = free_bytes(holdings, use);

  const auto choice = [&](const MemoryPlan& chosen, std::vector<std::string> victims) {
    const Charge charge{chosen.weights_key, chosen.weights_bytes,
                        chosen.total_bytes - chosen.weights_bytes};
    return RoomChoice{chosen, charge, std::move(victims)};
  };
  const auto beside_others = [&](int32_t least_context) -> std::optional<RoomChoice> {
    const auto fitted = plan(options, free + shared_bytes);
    if (!fitted.ok() || fitted.value().context_size < least_context) return std::nullopt;
    return choice(fitted.value(), {});
  };
  uint64_t least_needed = 0;
  const auto at_cost = [&](const ModelOptions& fixed) -> std::optional<RoomChoice> {
    const auto fitted = plan(fixed, kNoLimit);
    if (!fitted.ok()) return std::nullopt;
    // A victim may be the one whose weights are shared: then they are needed after all.
    const uint64_t needed = fitted.value().total_bytes - shared_bytes;
    least_needed = needed;
    if (needed <= free) return choice(fitted.value(), {});
    std::vector<Holding> others(holdings.begin(), holdings.end());
    if (is_shared) {
      // The newcomer holds the weights too, so that no eviction frees them.
      Holding self;
      self.charge = {fitted.value().weights_key, fitted.value().weights_bytes, 0};
      self.moving = true;
      others.push_back(self);
    }
    auto victims = choose_victims(others, needed - free, allowed);
    if (!victims) return std::nullopt;
    return choice(fitted.value(), *std::move(victims));
  };

  const int32_t useful = std::min(kUsefulContext, whole.value().context_size);
  if (last) {
    ModelOptions as_before = options;
    as_before.context_size = last->context_size;
    as_before.kv_cells = last->kv_cells;
    if (auto found = at_cost(as_before)) return *std::move(found);
  }
  if (auto found = beside_others(useful)) return *std::move(found);
  const int32_t train_context = whole.value().context_size;
  if (auto found = at_cost(with_context(options, useful, train_context))) return *std::move(found);
  if (auto found = beside_others(0)) return *std::move(found);
  if (auto found = at_cost(with_context(options, kLeastContext, train_context))) {
    return *std::move(found);
  }
  return Status(StatusCode::kOutOfMemory,
                explain_refusal("model " + model_id, least_needed, holdings, use, kSmallerContext));
}

}  // namespace snapllm
