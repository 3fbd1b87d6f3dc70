// Where checkpoints of a prompt are taken: a pure function.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "snapllm/request.h"

namespace snapllm {

// Positions in the prompt at which the state is worth keeping for a model whose state
// cannot be cut afterwards: the end of its first turn (a system prompt that many
// conversations share), and the beginnings of its last two turns (another question to
// the same conversation; an answer whose template rewrites what was thought).
// A turn begins where the control token stands that also opens the prompt's last turn;
// `is_control` says which tokens of the prompt are control tokens. In a prompt without
// turns it is the last position, for the same prompt again, unless the state after all of
// it `is_kept_whole`. Positions at or before `num_cached`, and those closer together than
// `min_distance`, are left out.
std::vector<int32_t> checkpoint_cuts(std::span<const Token> prompt,
                                     const std::vector<bool>& is_control, int32_t num_cached,
                                     bool is_kept_whole, int32_t min_distance = 16);

}  // namespace snapllm
