// What llama.cpp's grammars of answers leave open and a request does not.
#pragma once

#include <string>

namespace snapllm {

// For a required tool call: the GBNF `grammar` without the text that may come before the
// call, which a model that has no use for the tool never ends, and without the text behind it.
// Thinking before it, which begins with `reasoning_start`, stays, and so does a grammar of any other
// form.
std::string without_text_around_call(std::string grammar, const std::string& reasoning_start = {});

// The grammar without the blanks around an answer that is JSON, without the Markdown fence that may
// stand there, and without the blanks before an answer that is a call: models that would rather say
// something else fill them. Those after reasoning go where that is said. A grammar of another form
// stays.
std::string without_blanks_around(std::string grammar, bool after_reasoning);

// For several calls: the grammar without the blanks that are repeated where no call comes, which a
// model may fill without end. Those after a call stay.
std::string without_blanks_alone(std::string grammar);

// For one call at most: the grammar without the repetition of its calls, and without blanks
// after it.
std::string with_one_call(std::string grammar);

// For a schema's JSON beside calls: the grammar without the Markdown fence around the JSON, which
// only the reader of a format without calls takes off.
std::string without_fence(const std::string& grammar);

// For objects with further properties: the grammar whose keys of those are JSON. llama.cpp tells them
// from the properties it knows letter by letter, where it takes backslashes and control characters
// for others.
std::string with_json_keys(std::string grammar);

// The literal as GBNF writes it, and then what the grammar allows.
std::string after_literal(const std::string& literal, const std::string& grammar);

// For a text of which the sampler does not read the beginning: the grammar without it, which is a
// literal as GBNF writes it. A grammar that does not begin so stays.
std::string without_beginning(std::string grammar, const std::string& literal);

// What either grammar allows. An empty one allows nothing.
std::string either(const std::string& first, const std::string& second);

}  // namespace snapllm
