// ggml's threads as the kernels take them.
#pragma once

#include "ggml-cpu.h"
#include "kernels/helpers.h"
#include "kernels/team.h"
#include "traits.h"

namespace snapllm {

inline Team team_of(const ggml_compute_params* params) {
  Team team;
  team.thread = params->ith;
  team.num_threads = params->nth;
  team.context = params->threadpool;
  team.wait_for_all = [](void* pool) { ggml_barrier(static_cast<ggml_threadpool*>(pool)); };
  team.hand_out = [](void* pool, int first) {
    ggml_threadpool_chunk_set(static_cast<ggml_threadpool*>(pool), first);
  };
  team.take = [](void* pool) {
    return ggml_threadpool_chunk_add(static_cast<ggml_threadpool*>(pool), 1);
  };
  if (params->nth == 1) team.helpers = Helpers::current();
  return team;
}

}  // namespace snapllm
