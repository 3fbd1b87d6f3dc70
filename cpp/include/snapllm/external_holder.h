// Memory of the budget that something else than a text model holds.
#pragma once

#include <functional>

namespace snapllm {

// Who can give back what was charged with Engine::set_external_memory. Called on any thread.
struct ExternalHolder {
  // Frees the least needed that is idle, says so with set_external_memory, and returns false when
  // nothing can go.
  std::function<bool()> give_back;
  // Whether something may go that is busy now.
  std::function<bool()> may_give_back;
};

}  // namespace snapllm
