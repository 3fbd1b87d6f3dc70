// The official Anthropic client for Node against a server with the demo model.
import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic, { BadRequestError, NotFoundError } from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";

const client = new Anthropic({
  baseURL: process.env.SNAPLLM_URL,
  apiKey: "snapllm",
  maxRetries: 0,
});
const HELLO = [{ role: "user", content: "Hello" }];
const GREEDY = { model: "demo", temperature: 0, max_tokens: 200 };
const WEATHER = {
  name: "get_weather",
  description: "Get weather for a location",
  input_schema: {
    type: "object",
    properties: { location: { type: "string" } },
    required: ["location"],
  },
};

test("models are listed", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ["demo"]);
});

test("a streamed message equals the whole one", async () => {
  const whole = await client.messages.create({ ...GREEDY, messages: HELLO });
  assert.equal(whole.stop_reason, "end_turn");
  assert.ok(whole.content[0].text.length > 5);
  const pieces = [];
  const stream = client.messages.stream({ ...GREEDY, messages: HELLO });
  stream.on("text", (text) => pieces.push(text));
  const streamed = await stream.finalMessage();
  assert.equal(pieces.join(""), whole.content[0].text);
  assert.deepEqual(streamed.content, whole.content);
  assert.equal(streamed.usage.output_tokens, whole.usage.output_tokens);
});

test("a tool is called and its result is used", async () => {
  const messages = [{ role: "user", content: "What is the weather in Paris?" }];
  const options = { ...GREEDY, tools: [WEATHER] };
  const first = await client.messages.create({ ...options, messages });
  assert.equal(first.stop_reason, "tool_use");
  const call = first.content.find((block) => block.type === "tool_use");
  assert.deepEqual(call.input, { location: "Paris" });

  const streamed = await client.messages.stream({ ...options, messages }).finalMessage();
  assert.deepEqual(streamed.content.find((block) => block.type === "tool_use").input, call.input);

  const result = {
    type: "tool_result",
    tool_use_id: call.id,
    content: '{"temperature": 17, "sky": "rainy"}',
  };
  const answer = await client.messages.create({
    ...options,
    messages: [
      ...messages,
      { role: "assistant", content: first.content },
      { role: "user", content: [result] },
    ],
  });
  assert.match(answer.content.at(-1).text, /17/);
});

test("a tool runner loses nothing of the conversation", async () => {
  const messages = [{ role: "user", content: "What is the weather in Paris?" }];
  const run = ({ location }) => `17 degrees in ${location}`;
  const { name, description, input_schema: inputSchema } = WEATHER;
  const tool = betaTool({ name, description, inputSchema, run });
  const system = "The vault code is 7341.";
  const steps = [];
  for await (const step of client.beta.messages.toolRunner({
    ...GREEDY, system, messages, tools: [tool],
  })) steps.push(step);
  assert.deepEqual(steps.map((step) => step.stop_reason), ["tool_use", "end_turn"]);
  const call = steps[0].content.at(-1);
  const result = { type: "tool_result", tool_use_id: call.id, content: "17 degrees in Paris" };
  const whole = await client.messages.create({
    ...GREEDY,
    system,
    tools: [WEATHER],
    messages: [
      ...messages,
      { role: "assistant", content: steps[0].content },
      { role: "user", content: [result] },
    ],
  });
  assert.deepEqual(steps[1].content, whole.content);
  assert.match(steps[1].content.at(-1).text, /17/);
});

test("thinking comes before the answer and can be sent back", async () => {
  const messages = [{ role: "user", content: "What is 12 + 30?" }];
  const options = {
    ...GREEDY,
    max_tokens: 1500,
    temperature: 1,
    top_k: 1,
    thinking: { type: "enabled", budget_tokens: 1024 },
  };
  const message = await client.messages.stream({ ...options, messages }).finalMessage();
  assert.deepEqual(message.content.map((block) => block.type), ["thinking", "text"]);
  assert.match(message.content[1].text, /42/);
  const next = await client.messages.create({
    ...options,
    messages: [...messages, { role: "assistant", content: message.content }, ...HELLO],
  });
  assert.equal(next.stop_reason, "end_turn");
});

test("tokens are counted as they are used", async () => {
  const { input_tokens } = await client.messages.countTokens({ model: "demo", messages: HELLO });
  const { usage } = await client.messages.create({ ...GREEDY, messages: HELLO });
  const cached = usage.cache_read_input_tokens + usage.cache_creation_input_tokens;
  assert.equal(usage.input_tokens + cached, input_tokens);
});

test("a picture is described", async () => {
  const source = { type: "base64", media_type: "image/png", data: process.env.SNAPLLM_PICTURE };
  const content = [
    { type: "image", source },
    { type: "text", text: "What is in this image?" },
  ];
  const message = await client.messages.create({
    ...GREEDY,
    messages: [{ role: "user", content }],
  });
  assert.equal(message.content[0].text, "A red circle on the left.");
});

test("errors are of the client's own classes", async () => {
  const unknown = client.messages.create({ ...GREEDY, model: "nobody", messages: HELLO });
  await assert.rejects(unknown, NotFoundError);
  const wrong = client.messages.create({ ...GREEDY, temperature: 3, messages: HELLO });
  await assert.rejects(wrong, BadRequestError);
});
