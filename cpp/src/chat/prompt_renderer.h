// The prompt that a chat template gives, and what it begins the answer with.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "chat-auto-parser.h"
#include "chat.h"

struct llama_vocab;

namespace snapllm {

struct Rendering {
  std::string prompt;
  // What the template ends the prompt with for the answer to go on from. May render once more, and
  // throws what that throws.
  // REQUIRES: the renderer
  std::function<std::string()> generation_prompt;
};

// Renders the chat templates of a model. common_chat_templates_apply renders a chat three times where
// it makes no rules for the answer, and an agent's conversation takes milliseconds each time; here it
// is once, or twice. Immutable; any thread may render.
class PromptRenderer {
 public:
  // REQUIRES: `templates`, as long as this is there
  PromptRenderer(const llama_vocab* vocab, const common_chat_templates* templates);

  // Whether llama.cpp derives the answers' formats from how the templates render, having no code of
  // its own for them. Then only the prompt depends on the messages.
  bool is_generic() const;

  // The prompt that common_chat_templates_apply gives, or what it throws.
  // REQUIRES: is_generic()
  Rendering render(common_chat_templates_inputs inputs) const;

 private:
  struct Template {
    Template(const std::string& source, const std::string& bos, const std::string& eos);

    common_chat_template compiled;
    bool is_generic;
    bool trims_text;
  };
  // What llama.cpp makes of the inputs for a template; nothing where that takes more than is done here.
  std::optional<autoparser::generation_params> prepare(const common_chat_templates_inputs& inputs,
                                                       const Template& chosen) const;

  const common_chat_templates* const templates_;
  bool adds_bos_;
  bool adds_eos_;
  std::unique_ptr<const Template> default_;   // null where it cannot be compiled apart
  std::unique_ptr<const Template> tool_use_;  // null where there is none
};

}  // namespace snapllm
