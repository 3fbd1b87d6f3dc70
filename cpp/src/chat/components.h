// Strongly connected components of a graph of rules.
#pragma once

#include <cstdint>
#include <vector>

namespace snapllm {

// For every node, where edges from it lead.
using Edges = std::vector<std::vector<uint32_t>>;

struct Components {
  std::vector<uint32_t> of;     // the component of each node
  std::vector<uint32_t> order;  // all nodes; an edge out of a component leads to an earlier node
};

// Takes time and memory in proportion to the graph, and little stack.
Components components(const Edges& edges);

}  // namespace snapllm
