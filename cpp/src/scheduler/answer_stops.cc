#include "scheduler/answer_stops.h"

#include <algorithm>
#include <utility>

namespace snapllm {
namespace {

constexpr std::string_view kSpaces = " \t\r\n";

std::vector<std::string> without_empty(std::vector<std::string> strings) {
  std::erase_if(strings, [](const std::string& string) { return string.empty(); });
  return strings;
}

}  // namespace

AnswerStops::AnswerStops(std::vector<std::string> stops, AnswerMarkup markup)
    : stops_(without_empty(std::move(stops))),
      markup_{markup.begins_in_reasoning, markup.is_call, markup.reasoning_start,
              without_empty(std::move(markup.reasoning_ends)),
              without_empty(std::move(markup.call_starts))},
      reasoning_starts_(without_empty({markup_.reasoning_start})),
      zone_(markup_.begins_in_reasoning && !markup_.reasoning_ends.empty() ? Zone::kReasoning
            : markup_.is_call                                              ? Zone::kCall
                                                                           : Zone::kSaid) {}

std::string AnswerStops::push(const std::string& text) {
  if (stops_.empty()) return text;
  if (matched()) return {};
  pending_ += text;
  return read(/*is_end=*/false);
}

std::string AnswerStops::finish() {
  if (matched()) return {};
  std::string passed = read(/*is_end=*/true);
  if (!matched()) passed += std::exchange(pending_, {});
  return passed;
}

std::string AnswerStops::read(bool is_end) {
  std::string passed;
  for (bool goes_on = true; goes_on && !pending_.empty();) {
    switch (zone_) {
      case Zone::kReasoning: goes_on = read_reasoning(passed); break;
      case Zone::kGap: goes_on = read_gap(passed); break;
      case Zone::kSaid: goes_on = read_said(passed, is_end); break;
      case Zone::kCall: passed += take(pending_.size()); break;
    }
  }
  return passed;
}

bool AnswerStops::read_reasoning(std::string& passed) {
  const Place end = first_of(markup_.reasoning_ends);
  if (end.what == nullptr) {
    passed += take(open_beginning(markup_.reasoning_ends));
    return false;
  }
  passed += take(end.at + end.what->size());
  zone_ = markup_.is_call ? Zone::kCall : Zone::kGap;
  return true;
}

bool AnswerStops::read_gap(std::string& passed) {
  passed += take(std::min(pending_.find_first_not_of(kSpaces), pending_.size()));
  if (!pending_.empty()) zone_ = Zone::kSaid;
  return true;
}

bool AnswerStops::read_said(std::string& passed, bool is_end) {
  const Place stop = first_of(stops_);
  const Place call = first_of(markup_.call_starts);
  Place reasoning = has_said_ ? Place{} : first_of(reasoning_starts_);
  if (pending_.find_first_not_of(kSpaces) != reasoning.at) reasoning = {};
  // At one place markup comes before a stop string.
  if (reasoning.what != nullptr && reasoning.at <= std::min(stop.at, call.at)) {
    passed += take(reasoning.at + reasoning.what->size());
    zone_ = Zone::kReasoning;
    return true;
  }
  if (call.what != nullptr && call.at <= stop.at) {
    passed += take(call.at + call.what->size());
    zone_ = Zone::kCall;
    return true;
  }
  size_t open_markup = open_beginning(markup_.call_starts);
  if (!has_said_) open_markup = std::min(open_markup, open_beginning(reasoning_starts_));
  if (stop.what != nullptr && (is_end || stop.at < open_markup)) {
    passed += take(stop.at);
    match_ = *stop.what;
    pending_.clear();
    return false;
  }
  passed += take(std::min({open_markup, open_beginning(stops_), stop.at}));
  return false;
}

AnswerStops::Place AnswerStops::first_of(const std::vector<std::string>& strings) const {
  Place first;
  for (const std::string& string : strings) {
    const size_t at = pending_.find(string);
    if (at < first.at) first = {at, &string};
  }
  return first;
}

size_t AnswerStops::open_beginning(const std::vector<std::string>& strings) const {
  size_t begin = pending_.size();
  for (const std::string& string : strings) {
    const size_t longest = std::min(string.size() - 1, pending_.size());
    for (size_t length = longest; length > 0; --length) {
      const size_t at = pending_.size() - length;
      if (pending_.compare(at, length, string, 0, length) == 0) {
        begin = std::min(begin, at);
        break;
      }
    }
  }
  return begin;
}

std::string AnswerStops::take(size_t num_bytes) {
  std::string taken = pending_.substr(0, num_bytes);
  pending_.erase(0, num_bytes);
  if (zone_ == Zone::kSaid && taken.find_first_not_of(kSpaces) != std::string::npos) has_said_ = true;
  return taken;
}

}  // namespace snapllm
