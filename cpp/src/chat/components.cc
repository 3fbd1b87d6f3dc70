#include "chat/components.h"

#include <algorithm>
#include <limits>

namespace snapllm {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

// Tarjan's algorithm, with a stack of its own.
class Search {
 public:
  explicit Search(const Edges& edges)
      : edges_(edges), index_(edges.size(), kNone), low_(edges.size()) {
    found_.of.assign(edges.size(), kNone);
    found_.order.reserve(edges.size());
  }

  Components run() {
    for (uint32_t node = 0; node < edges_.size(); ++node) {
      if (index_[node] == kNone) visit(node);
    }
    return std::move(found_);
  }

 private:
  struct Step {
    uint32_t node;
    size_t next = 0;  // of its edges
  };

  void enter(uint32_t node) {
    index_[node] = low_[node] = num_entered_++;
    open_.push_back(node);
    steps_.push_back({node});
  }

  void visit(uint32_t start) {
    enter(start);
    while (!steps_.empty()) {
      Step& step = steps_.back();
      const uint32_t node = step.node;
      if (step.next < edges_[node].size()) {
        const uint32_t to = edges_[node][step.next++];
        if (index_[to] == kNone) enter(to);
        else if (found_.of[to] == kNone) low_[node] = std::min(low_[node], index_[to]);
        continue;
      }
      steps_.pop_back();
      if (!steps_.empty()) low_[steps_.back().node] = std::min(low_[steps_.back().node], low_[node]);
      if (low_[node] == index_[node]) close(node);
    }
  }

  void close(uint32_t root) {
    for (uint32_t node = kNone; node != root;) {
      node = open_.back();
      open_.pop_back();
      found_.of[node] = num_closed_;
      found_.order.push_back(node);
    }
    ++num_closed_;
  }

  const Edges& edges_;
  std::vector<uint32_t> index_;
  std::vector<uint32_t> low_;
  std::vector<uint32_t> open_;
  std::vector<Step> steps_;
  uint32_t num_entered_ = 0;
  uint32_t num_closed_ = 0;
  Components found_;
};

}  // namespace

Components components(const Edges& edges) { return Search(edges).run(); }

}  // namespace snapllm
