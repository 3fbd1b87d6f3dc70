#include "chat/grammar_check.h"

#include <exception>
#include <new>

#include "backend/llama_runtime.h"
#include "chat/gbnf_text.h"
#include "chat/grammar_copies.h"
#include "chat/grammar_rules.h"
#include "chat/grammar_runs.h"
#include "llama-cpp.h"
#include "llama.h"

namespace snapllm {
namespace {

constexpr size_t kMaxReasonBytes = 120;
// The counts of ambiguity take a kilobyte for each.
constexpr size_t kMaxRules = 100'000;

std::string brief(std::string reason) {
  // llama.cpp quotes all that follows.
  if (reason.size() > kMaxReasonBytes) {
    reason.resize(kMaxReasonBytes);
    reason += "...";
  }
  return reason;
}

const char* skip_blank(const char* at) {
  while (*at == ' ' || *at == '\t' || *at == '\r' || *at == '\n' || *at == '#') {
    if (*at++ != '#') continue;
    while (*at != '\0' && *at != '\r' && *at != '\n') ++at;
  }
  return at;
}

// Rule by rule, as the parser's own loop prints all of a text that it cannot read.
std::string parse(llama_grammar_parser& parser, const std::string& grammar) {
  try {
    for (const char* at = skip_blank(grammar.c_str()); *at != '\0';) at = parser.parse_rule(at);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    return brief(e.what());
  }
  for (const auto& [name, rule] : parser.symbol_ids) {
    if (rule >= parser.rules.size() || parser.rules[rule].empty()) {
      return brief("it has no rule " + name);
    }
  }
  return parser.symbol_ids.contains("root") ? "" : "it has no rule root";
}

}  // namespace

std::string grammar_fault(const llama_vocab* vocab, const std::string& grammar) {
  if (std::string fault = gbnf_text_fault(grammar); !fault.empty()) return fault;
  llama_grammar_parser parser(vocab);
  if (std::string fault = parse(parser, grammar); !fault.empty()) return fault;
  const GrammarRules rules(parser.rules);
  if (std::string fault = rules.recursion_fault(); !fault.empty()) return fault;
  const auto copies = with_own_copies(parser.rules, rules, parser.symbol_ids.at("root"));
  if (copies.size() > kMaxRules) return "it has too many rules";
  if (std::string fault = ambiguity_fault(GrammarRules(copies)); !fault.empty()) return fault;
  const LlamaLogCapture log;
  const llama_sampler_ptr made(llama_sampler_init_grammar(vocab, grammar.c_str(), "root"));
  return made ? "" : log.errors();
}

}  // namespace snapllm
