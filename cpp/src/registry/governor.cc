#include "registry/governor.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <iterator>
#include <set>

namespace snapllm {
namespace {

using Indices = std::vector<size_t>;

uint64_t charged_except(std::span<const Holding> holdings, const std::set<size_t>& gone) {
  uint64_t bytes = 0;
  std::set<std::string_view> counted;
  for (size_t i = 0; i < holdings.size(); ++i) {
    if (gone.count(i) > 0) continue;
    const Charge& charge = holdings[i].charge;
    bytes += charge.own_bytes;
    const bool is_shared = !charge.weights_key.empty() && !counted.insert(charge.weights_key).second;
    if (!is_shared) bytes += charge.weights_bytes;
  }
  return bytes;
}

// What it costs to be without the model, for each byte it gives back.
double keep_value(const Holding& holding) {
  const auto bytes = static_cast<double>(holding.charge.weights_bytes + holding.charge.own_bytes);
  return holding.rebuild_ms / std::max(bytes, 1.0) / (1.0 + holding.idle_s);
}

// The candidates, the first to go first.
Indices in_order_of_eviction(std::span<const Holding> holdings, Victims allowed) {
  Indices order;
  for (size_t i = 0; i < holdings.size(); ++i) {
    const Holding& holding = holdings[i];
    if (holding.pinned || holding.moving) continue;
    if (holding.in_use && allowed == Victims::kIdle) continue;
    order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (holdings[a].in_use != holdings[b].in_use) return holdings[b].in_use;
    const double value_a = keep_value(holdings[a]), value_b = keep_value(holdings[b]);
    return value_a != value_b ? value_a < value_b : holdings[a].id < holdings[b].id;
  });
  return order;
}

}  // namespace

uint64_t charged_bytes(std::span<const Holding> holdings) { return charged_except(holdings, {}); }

bool has_weights(std::span<const Holding> holdings, std::string_view weights_key) {
  return std::any_of(holdings.begin(), holdings.end(),
                     [&](const Holding& h) { return h.charge.weights_key == weights_key; });
}

uint64_t free_bytes(std::span<const Holding> holdings, const MemoryUse& use) {
  const uint64_t taken = charged_bytes(holdings) + use.snapshot_bytes + use.external_bytes;
  return use.budget_bytes > taken ? use.budget_bytes - taken : 0;
}

MachineBudget machine_budget(std::span<const Holding> holdings, const MemoryUse& use,
                             uint64_t kept_snapshot_bytes, uint64_t available_bytes) {
  std::vector<Holding> loads;
  std::ranges::copy_if(holdings, std::back_inserter(loads), &Holding::loading);
  const uint64_t granted = std::min(charged_bytes(loads), available_bytes);
  const uint64_t taken = charged_bytes(holdings) + kept_snapshot_bytes + use.external_bytes;
  if (available_bytes > UINT64_MAX - taken) return {use.budget_bytes, use.budget_bytes};
  return {std::min(use.budget_bytes, taken + available_bytes),
          std::min(use.budget_bytes, taken + available_bytes - granted)};
}

std::vector<Holding> at_rest(std::span<const Holding> holdings, bool leases_end) {
  std::vector<Holding> resting(holdings.begin(), holdings.end());
  for (Holding& holding : resting) {
    if (holding.moving) holding.moving = holding.pinned = holding.in_use = false;
    if (leases_end && !holding.has_requests) holding.in_use = false;
  }
  return resting;
}

std::optional<std::vector<std::string>> choose_victims(std::span<const Holding> holdings,
                                                       uint64_t missing_bytes, Victims allowed) {
  const uint64_t before = charged_bytes(holdings);
  const auto frees_enough = [&](const std::set<size_t>& gone) {
    return before - charged_except(holdings, gone) >= missing_bytes;
  };
  std::set<size_t> gone;
  Indices chosen;
  for (const size_t index : in_order_of_eviction(holdings, allowed)) {
    if (frees_enough(gone)) break;
    gone.insert(index);
    chosen.push_back(index);
  }
  if (!frees_enough(gone)) return std::nullopt;
  // A large one chosen last can make smaller ones before it needless. The dearest are
  // spared first.
  for (auto it = chosen.rbegin(); it != chosen.rend(); ++it) {
    gone.erase(*it);
    if (!frees_enough(gone)) gone.insert(*it);
  }
  std::vector<std::string> victims;
  for (const size_t index : chosen) {
    if (gone.count(index) > 0) victims.push_back(holdings[index].id);
  }
  return victims;
}

std::string format_bytes(uint64_t bytes) {
  static constexpr std::array kUnits = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024.0 && unit + 1 < kUnits.size(); ++unit) value /= 1024.0;
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text.data();
}

std::string explain_refusal(std::string_view what, uint64_t needed_bytes,
                            std::span<const Holding> holdings, const MemoryUse& use,
                            std::string_view less) {
  std::string text = std::string(what) + " needs " + format_bytes(needed_bytes) + ", but " +
                     format_bytes(free_bytes(holdings, use)) + " of the budget of " +
                     format_bytes(use.budget_bytes) + " are free";
  std::string holders;
  const auto add = [&](const std::string& holder, uint64_t bytes, const char* state) {
    holders += (holders.empty() ? "" : ", ") + holder + " " + format_bytes(bytes) + state;
  };
  for (const Holding& holding : holdings) {
    add(holding.id, holding.charge.weights_bytes + holding.charge.own_bytes,
        holding.pinned   ? " (pinned)"
        : holding.moving ? " (loading or leaving)"
        : holding.in_use ? " (in use)"
                         : "");
  }
  if (use.snapshot_bytes > 0) add("KV snapshots", use.snapshot_bytes, "");
  if (use.external_bytes > 0) add("image models", use.external_bytes, "");
  if (!holders.empty()) text += "; held: " + holders;
  if (needed_bytes > use.budget_bytes) {
    const std::string or_less = less.empty() ? "" : ", or ask for " + std::string(less);
    return text + ". It does not fit alone: raise the memory budget" + or_less;
  }
  const std::string ask_less = less.empty() ? "" : " ask for " + std::string(less) + ",";
  return text + ". Unload or unpin a model," + ask_less + " or raise the memory budget";
}

}  // namespace snapllm
