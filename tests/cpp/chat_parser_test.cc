#include "chat/llama_chat_parser.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>

#include "chat-peg-parser.h"
#include "check.h"
#include "log.h"

namespace snapllm {
namespace {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The formats of every family that llama.cpp has a template of, with and without tools; empty
// in a checkout without its sources.
std::vector<std::shared_ptr<AnswerRules>> formats() {
  std::vector<std::shared_ptr<AnswerRules>> found;
  if (!std::filesystem::exists(SNAPLLM_TEMPLATES)) return found;
  for (const auto& entry : std::filesystem::directory_iterator(SNAPLLM_TEMPLATES)) {
    if (entry.path().extension() != ".jinja") continue;
    for (const bool with_tool : {false, true}) {
      common_chat_templates_inputs inputs;
      inputs.messages = common_chat_msgs_parse_oaicompat(
          common_json::parse(R"([{"role": "user", "content": "x"}])"));
      if (with_tool) {
        inputs.tools.push_back(
            {"weather", "x", R"({"type": "object", "properties": {"city": {"type": "string"}}})"});
      }
      inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
      try {
        const auto templates = common_chat_templates_init(nullptr, read_file(entry.path()));
        common_chat_params params = common_chat_templates_apply(templates.get(), inputs);
        params.preserved_tokens.clear();  // there is no vocabulary
        found.push_back(std::make_shared<AnswerRules>(std::move(params), nullptr,
                                                      std::vector<llama_token>(), false, false));
      } catch (const std::exception&) {
        // It takes no such conversation.
      }
    }
  }
  return found;
}

std::string whole_characters(const std::string& text, size_t num_bytes) {
  while ((static_cast<unsigned char>(text[num_bytes]) & 0xC0) == 0x80) --num_bytes;
  return text.substr(0, num_bytes);
}

// What the format's markup is made of, and what text is.
std::vector<std::string> words_of(const AnswerRules& rules) {
  std::set<std::string> words = {" ",  "a",  "hello", "\n", "\n\n", "<",  "</", ">", "{", "}",
                                 "\"", "[",  "]",     ":",  ", ",   "\\", "|",  "é", "日", "weather",
                                 " x", "\t", "{\"city\": \"Rome\"}", "```"};
  const common_peg_arena& arena = rules.parser_params.parser;
  for (size_t id = 0; id < arena.size(); ++id) {
    if (const auto* literal = std::get_if<common_peg_literal_parser>(&arena.get(id))) {
      words.insert(literal->literal);
    } else if (const auto* until = std::get_if<common_peg_until_parser>(&arena.get(id))) {
      for (const std::string& delimiter : until->delimiters) {
        words.insert(delimiter);
        words.insert(whole_characters(delimiter, delimiter.size() / 2));  // looks like it at first
      }
    }
  }
  return {words.begin(), words.end()};
}

std::string random_answer(const std::vector<std::string>& words, std::mt19937& generator) {
  std::string text;
  const size_t count = generator() % 12;
  for (size_t i = 0; i < count; ++i) {
    // Half of it is text: markup at every word is no answer.
    text += generator() % 2 == 0 ? " plain text" : words[generator() % words.size()];
  }
  return text;
}

// In pieces that end between characters, as answers come.
std::vector<std::string> cut(const std::string& text, std::mt19937& generator) {
  std::vector<std::string> pieces(1);
  const size_t most = 1 + generator() % 8;
  for (const char c : text) {
    const bool begins_character = (static_cast<unsigned char>(c) & 0xC0) != 0x80;
    if (begins_character && pieces.back().size() >= most) pieces.emplace_back();
    pieces.back() += c;
  }
  return pieces;
}

std::string as_text(const std::vector<ChatDelta>& deltas) {
  std::string text;
  for (const ChatDelta& delta : deltas) {
    text += std::to_string(static_cast<int>(delta.kind)) + std::to_string(delta.tool_index) +
            delta.tool_name + '(' + delta.text + ')';  // the id of a call may be a random one
  }
  return text;
}

TEST(chat_parser, an_answer_reads_as_if_it_were_read_from_its_beginning_each_time) {
  common_log_set_verbosity_thold(-1);  // most of these answers fit no format
  std::mt19937 generator(7);
  size_t num_formats = 0;
  for (const std::shared_ptr<AnswerRules>& rules : formats()) {
    ++num_formats;
    const std::vector<std::string> words = words_of(*rules);
    for (int number = 0; number < 40; ++number) {
      const std::string answer = random_answer(words, generator);
      LlamaChatParser parser(rules), reference(rules, /*reads_all=*/true);
      const std::vector<std::string> pieces = cut(answer, generator);
      std::string read, expected;
      for (size_t i = 0; i < pieces.size(); ++i) {
        RequestOutput output;
        output.text = pieces[i];
        if (i + 1 == pieces.size()) output.finish_reason = FinishReason::kStop;
        read += as_text(parser.push(output)) + '|';
        expected += as_text(reference.push(output)) + '|';
      }
      CHECK_EQ(read, expected);
    }
  }
  if (num_formats == 0) throw testing::TestSkipped{"this checkout has no upstream sources"};
  CHECK(num_formats > 50);
}

TEST(chat_parser, an_answer_that_goes_on_does_not_repeat_what_it_goes_on_from) {
  if (!std::filesystem::exists(SNAPLLM_TEMPLATES)) {
    throw testing::TestSkipped{"this checkout has no upstream sources"};
  }
  size_t num_continued = 0;
  std::set<std::string> others;
  for (const auto& entry : std::filesystem::directory_iterator(SNAPLLM_TEMPLATES)) {
    if (entry.path().extension() != ".jinja") continue;
    const auto templates = common_chat_templates_init(nullptr, read_file(entry.path()));
    for (const std::string begun : {"It is", "In Rome it is <", "One\n\ntwo "}) {
      common_chat_templates_inputs inputs;
      inputs.messages = common_chat_msgs_parse_oaicompat(common_json::parse(
          R"([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}])"));
      inputs.messages.back().content = begun;
      inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
      inputs.enable_thinking = false;
      inputs.add_generation_prompt = false;
      inputs.continue_final_message = COMMON_CHAT_CONTINUATION_CONTENT;
      common_chat_params params = common_chat_templates_apply(templates.get(), inputs);
      CHECK(params.prompt.ends_with(begun));
      params.preserved_tokens.clear();  // there is no vocabulary
      const auto rules = std::make_shared<const AnswerRules>(
          std::move(params), nullptr, std::vector<llama_token>(), false, false, begun);
      if (!reads_on(rules)) {
        others.insert(entry.path().stem().string());
        continue;
      }
      ++num_continued;
      LlamaChatParser parser(rules);
      std::string content;
      for (const char* piece : {" su", "nny", " now", ""}) {
        RequestOutput output;
        output.text = piece;
        if (output.text.empty()) output.finish_reason = FinishReason::kStop;
        for (const ChatDelta& delta : parser.push(output)) {
          CHECK(delta.kind == ChatDelta::Kind::kContent);
          content += delta.text;
        }
      }
      CHECK_EQ(content, " sunny now");
    }
  }
  // Its answers stand between tags, the first of which llama.cpp leaves out here.
  CHECK(others == std::set<std::string>{"CohereForAI-c4ai-command-r7b-12-2024-tool_use"});
  CHECK(num_continued > 100);
}

TEST(chat_parser, plain_text_is_not_read_again) {
  common_chat_params params;
  const auto rules =
      std::make_shared<AnswerRules>(params, nullptr, std::vector<llama_token>(), false, false);
  CHECK(rules->markup_bytes.none());
  LlamaChatParser parser(rules);
  RequestOutput output;
  output.text = std::string(100, 'x');
  size_t num_bytes = 0;
  // From the beginning each time these would be ten gigabytes, and minutes.
  for (int i = 0; i < 14'000; ++i) {
    for (const ChatDelta& delta : parser.push(output)) num_bytes += delta.text.size();
  }
  CHECK_EQ(num_bytes, 1'400'000u);
}

// The rules of the format of one of llama.cpp's templates.
std::shared_ptr<AnswerRules> rules_of(const std::string& name, common_chat_templates_inputs inputs) {
  const std::filesystem::path path = std::filesystem::path(SNAPLLM_TEMPLATES) / (name + ".jinja");
  if (!std::filesystem::exists(path)) {
    throw testing::TestSkipped{"this checkout has no upstream sources"};
  }
  const auto templates = common_chat_templates_init(nullptr, read_file(path));
  inputs.messages =
      common_chat_msgs_parse_oaicompat(common_json::parse(R"([{"role": "user", "content": "x"}])"));
  inputs.add_generation_prompt = true;
  common_chat_params params = common_chat_templates_apply(templates.get(), inputs);
  params.preserved_tokens.clear();  // there is no vocabulary
  return std::make_shared<AnswerRules>(std::move(params), nullptr, std::vector<llama_token>(), false,
                                       !inputs.json_schema.empty());
}

// Those of a template with a tool, of one that writes calls as JSON between tags.
std::shared_ptr<AnswerRules> rules_of_calls(const std::string& json_schema,
                                            const char* name = "Qwen-Qwen2.5-7B-Instruct") {
  common_chat_templates_inputs inputs;
  inputs.json_schema = json_schema;
  if (json_schema.empty()) {
    inputs.tools.push_back({"write", "x", R"({"type": "object", "properties": {"text": {}}})"});
  }
  return rules_of(name, std::move(inputs));
}

struct ReadAnswer {
  std::string content;
  std::string arguments;
};

ReadAnswer read_all(LlamaChatParser& parser, const std::vector<std::string>& pieces) {
  ReadAnswer answer;
  for (size_t i = 0; i <= pieces.size(); ++i) {
    RequestOutput output;
    if (i < pieces.size()) output.text = pieces[i];
    else output.finish_reason = FinishReason::kStop;
    for (const ChatDelta& delta : parser.push(output)) {
      (delta.kind == ChatDelta::Kind::kToolCall ? answer.arguments : answer.content) += delta.text;
    }
  }
  return answer;
}

TEST(chat_parser, a_call_whose_name_begins_with_anothers_is_told_by_all_of_it) {
  const std::string call = R"({"text": "a"})";
  for (const auto& [name, answer] : std::vector<std::pair<std::string, std::string>>{
           {"Apertus-8B-Instruct", "<|tools_prefix|>[{\"write_all\": " + call + "}]<|tools_suffix|>"},
           {"Qwen-Qwen2.5-7B-Instruct",
            "<tool_call>\n{\"name\": \"write_all\", \"arguments\": " + call + "}\n</tool_call>"}}) {
    common_chat_templates_inputs inputs;
    for (const char* tool : {"write", "write_all"}) {
      inputs.tools.push_back({tool, "x", R"({"type": "object", "properties": {"text": {}}})"});
    }
    LlamaChatParser parser(rules_of(name, std::move(inputs)));
    std::vector<std::string> names;
    std::string arguments;
    for (size_t i = 0; i <= answer.size(); ++i) {
      RequestOutput output;
      output.text = answer.substr(i, 1);
      if (i == answer.size()) output.finish_reason = FinishReason::kStop;
      for (const ChatDelta& delta : parser.push(output)) {
        CHECK(delta.kind == ChatDelta::Kind::kToolCall);
        if (!delta.tool_name.empty()) names.push_back(delta.tool_name);
        arguments += delta.text;
      }
    }
    CHECK(names == std::vector<std::string>{"write_all"});
    CHECK_EQ(arguments, call);
  }
}

TEST(chat_parser, json_is_not_read_again_until_it_ends) {
  // Each 1.2 MB: from the beginning each time these would be gigabytes, and minutes.
  std::vector<std::string> pieces{"<tool_call>\n{\"name\": \"write\", \"arguments\": ", "{\"text\"",
                                  ": [\""};
  for (int i = 0; i < 12'000; ++i) pieces.push_back("<b> \\\"}} " + std::string(92, 'x'));
  std::string arguments;
  pieces.insert(pieces.end(), {"\", {\"a\": 1}]", "}", "}\n</tool_call>"});
  for (size_t i = 1; i + 1 < pieces.size(); ++i) arguments += pieces[i];
  LlamaChatParser calls(rules_of_calls(""));
  const ReadAnswer called = read_all(calls, pieces);
  CHECK(called.arguments == arguments);
  CHECK_EQ(called.content, "");

  LlamaChatParser texts(rules_of_calls(R"({"type": "object"})"));
  pieces.erase(pieces.begin());
  pieces.pop_back();
  CHECK(read_all(texts, pieces).content == arguments);
}

TEST(chat_parser, a_long_call_that_is_no_json_is_not_read_again_for_each_token) {
  // 180 KB: from the beginning each time these would be two gigabytes, and minutes.
  std::vector<std::string> pieces{"<tool_call>\n<function=write>\n<parameter=text>\n"};
  std::string arguments = R"({"text":")";
  for (int i = 0; i < 15'000; ++i) {
    const bool ends_line = i % 4 == 3;
    pieces.push_back(ends_line ? "a line end\n" : "some words ");
    arguments += ends_line ? "a line end\\n" : "some words ";
  }
  pieces.push_back("end\n</parameter>\n</function>\n</tool_call>");
  arguments += R"(end"})";
  LlamaChatParser parser(rules_of_calls("", "Qwen3-Coder"));
  const ReadAnswer answer = read_all(parser, pieces);
  CHECK(answer.arguments == arguments);
  CHECK_EQ(answer.content, "");
}

TEST(chat_parser, a_call_behind_a_long_one_comes_token_by_token_too) {
  const std::string begin = "<tool_call>\n{\"name\": \"write\", \"arguments\": {\"text\": \"";
  const std::string end = "\"}}\n</tool_call>";
  LlamaChatParser parser(rules_of_calls(""));
  RequestOutput output;
  output.text = begin + std::string(20'000, 'x');
  parser.push(output);
  size_t num_deltas = 0;
  for (const std::string& piece : {end, "\n" + begin + std::string(400, 'y')}) {
    output.text = piece;
    for (const ChatDelta& delta : parser.push(output)) num_deltas += delta.tool_index == 1;
  }
  CHECK_EQ(num_deltas, 1);
  output.text = "some more";
  for (int i = 0; i < 50; ++i) parser.push(output);  // read once more among these
  for (int i = 0; i < 10; ++i) CHECK_EQ(parser.push(output).size(), 1);
}

TEST(chat_parser, what_is_nested_too_deep_is_passed_on_unread) {
  const std::string deep(20'000, '[');
  for (const size_t size : {size_t{1}, size_t{7}, deep.size()}) {
    for (const bool is_call : {false, true}) {
      LlamaChatParser parser(rules_of_calls(is_call ? "" : R"({})"));
      std::vector<std::string> pieces;
      if (is_call) pieces.push_back("<tool_call>\n{\"name\": \"write\", \"arguments\": {\"text\": ");
      for (size_t i = 0; i < deep.size(); i += size) pieces.push_back(deep.substr(i, size));
      const ReadAnswer answer = read_all(parser, pieces);
      CHECK((is_call ? answer.arguments : answer.content).ends_with(deep));
      CHECK_EQ(is_call ? answer.content : answer.arguments, "");
    }
  }
}

}  // namespace
}  // namespace snapllm
