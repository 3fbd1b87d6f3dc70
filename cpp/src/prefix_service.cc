#include "prefix_service.h"

#include <map>
#include <string_view>
#include <utility>

namespace snapllm {

Result<StoreScope> scope_of(const PrefixRef& prefix) {
  const auto parsed = hash128_of_hex(prefix.fingerprint);
  if (!parsed) {
    return Status(StatusCode::kInvalidRequest, "not a fingerprint: " + prefix.fingerprint);
  }
  const Hash128& fingerprint = *parsed;
  const bool is_blocks = prefix.kv_kind == "blocks";
  if (!is_blocks && prefix.kv_kind != "checkpoints") {
    return Status(StatusCode::kInvalidRequest, "not a kind of KV: " + prefix.kv_kind);
  }
  const KvKind kind = is_blocks ? KvKind::kBlocks : KvKind::kCheckpoints;
  return StoreScope{fingerprint, root_key(fingerprint, kind, prefix.cache_namespace), kind};
}

ModelRegistry::Lease PrefixService::lease_of(const PrefixRef& prefix,
                                             const StoreScope& scope) const {
  auto lease = registry_.find(prefix.model_id);
  if (!lease.ok()) return nullptr;
  const TextModel& model = *lease.value()->model;
  if (model.fingerprint() != scope.fingerprint || model.kv_kind() != scope.kind) return nullptr;
  return std::move(lease).value();
}

void PrefixService::settle(const ModelRegistry::Lease& lease) {
  settle();
  if (lease == nullptr || !lease->model->info().saves_when_idle) return;
  compute_.run([&] { lease->scheduler->save_hot(); });
}

Result<PrefixInfo> PrefixService::info(const PrefixRef& prefix) {
  const auto scope = scope_of(prefix);
  if (!scope.ok()) return scope.status();
  settle();
  const PrefixUsage usage = store_.usage(scope.value(), prefix.tokens);
  const auto num_tokens = static_cast<int32_t>(prefix.tokens.size());
  PrefixInfo info;
  info.is_on_disk = usage.num_disk_tokens == num_tokens;
  info.ram_bytes = usage.ram_bytes;
  info.disk_bytes = usage.disk_bytes;
  if (usage.num_stored_tokens == num_tokens) {
    info.tier = usage.num_ram_tokens == num_tokens ? Tier::kWarm : Tier::kCold;
  }
  if (const auto lease = lease_of(prefix, scope.value())) {
    if (lease->scheduler->is_hot(scope.value().root, prefix.tokens)) {
      info.tier = Tier::kHot;
      info.hot_bytes = usage.state_bytes;
    }
  }
  return info;
}

Result<PrefixInfo> PrefixService::usage(std::span<const PrefixRef> prefixes,
                                        std::span<const Tier> tiers) {
  std::vector<ScopedTokens> chains;
  std::map<std::string_view, std::vector<ScopedTokens>> chains_of_models;
  for (size_t i = 0; i < prefixes.size(); ++i) {
    const auto scope = scope_of(prefixes[i]);
    if (!scope.ok()) return scope.status();
    chains.push_back({scope.value(), prefixes[i].tokens, tiers[i]});
    chains_of_models[prefixes[i].model_id].push_back(chains.back());
  }
  settle();
  const PrefixUsage usage = store_.usage(chains);
  PrefixInfo info;
  for (const auto& [model_id, of_model] : chains_of_models) {
    info.hot_bytes += store_.usage(of_model).state_bytes;
  }
  info.ram_bytes = usage.ram_bytes;
  info.disk_bytes = usage.disk_bytes;
  return info;
}

Status PrefixService::pin(const PrefixRef& prefix) {
  const auto scope = scope_of(prefix);
  if (!scope.ok()) return scope.status();
  store_.open(scope.value().fingerprint);
  store_.pin(scope.value(), prefix.tokens);
  return {};
}

Status PrefixService::persist(const PrefixRef& prefix) {
  const auto scope = scope_of(prefix);
  if (!scope.ok()) return scope.status();
  settle(lease_of(prefix, scope.value()));
  return store_.persist(scope.value(), prefix.tokens);
}

void PrefixService::drop_hot(const ModelRegistry::Lease& lease, const Hash128& root,
                             const PrefixRef& prefix, std::span<const PrefixRef> others) {
  if (lease == nullptr) return;
  // Ids of one file share what is stored, but each has a KV memory of its own.
  std::vector<std::vector<Token>> staying;
  for (const PrefixRef& other : others) {
    if (other.model_id == prefix.model_id) staying.push_back(other.tokens);
  }
  compute_.run([&] { lease->scheduler->demote(root, prefix.tokens, staying); });
}

Status PrefixService::discard(const PrefixRef& prefix, std::span<const PrefixRef> others) {
  const auto scope = scope_of(prefix);
  if (!scope.ok()) return scope.status();
  drop_hot(lease_of(prefix, scope.value()), scope.value().root, prefix, others);
  store_.unpin(scope.value(), prefix.tokens);
  store_.remove(scope.value(), prefix.tokens);
  return {};
}

Result<std::vector<StatePtr>> PrefixService::read(const PrefixRef& prefix) {
  const auto scope = scope_of(prefix);
  if (!scope.ok()) return scope.status();
  settle(lease_of(prefix, scope.value()));
  return store_.states(scope.value(), prefix.tokens);
}

Status PrefixService::write(const PrefixRef& prefix, std::vector<StateBytes> states) {
  const auto scope = scope_of(prefix);
  if (!scope.ok()) return scope.status();
  store_.open(scope.value().fingerprint);
  const std::span<const Token> tokens(prefix.tokens);
  const auto ranges = cut_into_pieces(scope.value().kind, static_cast<int32_t>(tokens.size()));
  if (ranges.size() != states.size()) {
    return {StatusCode::kInvalidRequest, "not as many states as the tokens have pieces"};
  }
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (has_ended_) return {StatusCode::kClosed, "the engine is closed"};
    const auto so_far = tokens.first(static_cast<size_t>(ranges[i].end));
    store_.put(scope.value(), so_far, ranges[i], std::move(states[i]));
    // One after the other: all together may be more than RAM is to hold.
    if (Status status = store_.persist(scope.value(), so_far); !status.ok()) return status;
  }
  return {};
}

Status PrefixService::move(const PrefixRef& prefix, Tier tier,
                           std::span<const PrefixRef> others) {
  const auto scope = scope_of(prefix);
  if (!scope.ok()) return scope.status();
  const auto num_tokens = static_cast<int32_t>(prefix.tokens.size());
  const auto lease = lease_of(prefix, scope.value());
  settle(lease);
  if (tier == Tier::kHot || tier == Tier::kWarm) {
    // From disk to RAM on this thread, so that the compute thread does not wait for it.
    // What RAM cannot hold is kept alive until it is in the KV memory.
    const auto stored = store_.match(scope.value(), prefix.tokens, num_tokens, Reading::kAll);
    if (stored.num_tokens != num_tokens) {
      return {StatusCode::kStorageFailed, "the context's KV is not stored, or cannot be read"};
    }
    if (tier == Tier::kHot) {
      if (lease == nullptr) {
        return {StatusCode::kModelNotFound, "Model not found: " + prefix.model_id};
      }
      Status status;
      compute_.run([&] {
        status = lease->scheduler->promote(scope.value().root, prefix.tokens, stored);
      });
      return status;
    }
  }
  if (tier == Tier::kCold) {
    std::vector<std::vector<Token>> staying;
    for (const PrefixRef& other : others) staying.push_back(other.tokens);
    Status status = store_.drop_from_ram(scope.value(), prefix.tokens, staying);
    if (!status.ok()) return status;
  }
  drop_hot(lease, scope.value().root, prefix, others);
  return {};
}

}  // namespace snapllm
