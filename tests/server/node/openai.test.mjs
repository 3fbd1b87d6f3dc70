// The official OpenAI client for Node against a server with the demo model.
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import OpenAI, { BadRequestError, NotFoundError } from "openai";

const client = new OpenAI({
  baseURL: `${process.env.SNAPLLM_URL}/v1`,
  apiKey: "snapllm",
  maxRetries: 0,
});
const HELLO = [{ role: "user", content: "Hello" }];
const GREEDY = { model: "demo", temperature: 0, max_tokens: 60 };
const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Get weather for a location",
    parameters: {
      type: "object",
      properties: { location: { type: "string" } },
      required: ["location"],
    },
  },
};

async function stats() {
  const response = await fetch(`${process.env.SNAPLLM_URL}/api/v1/models/cache/stats`);
  return (await response.json()).stats.models.find((model) => model.id === "demo");
}

test("models are listed and found", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ["demo"]);
  assert.equal((await client.models.retrieve("demo")).object, "model");
});

test("a streamed chat equals the whole one", async () => {
  const whole = await client.chat.completions.create({ ...GREEDY, messages: HELLO });
  const text = whole.choices[0].message.content;
  assert.ok(text.length > 5);
  const stream = await client.chat.completions.create({
    ...GREEDY,
    messages: HELLO,
    stream: true,
    stream_options: { include_usage: true },
  });
  let streamed = "";
  let usage;
  for await (const chunk of stream) {
    streamed += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(streamed, text);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
});

test("a tool is called and its result is used", async () => {
  const messages = [{ role: "user", content: "What is the weather in Paris?" }];
  const options = { ...GREEDY, max_tokens: 200, tools: [WEATHER] };
  const first = await client.chat.completions.create({ ...options, messages });
  assert.equal(first.choices[0].finish_reason, "tool_calls");
  const [call] = first.choices[0].message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.deepEqual(JSON.parse(call.function.arguments), { location: "Paris" });

  const stream = client.chat.completions.stream({ ...options, messages });
  const streamed = (await stream.finalChatCompletion()).choices[0].message.tool_calls[0];
  assert.equal(streamed.function.arguments, call.function.arguments);

  const answer = await client.chat.completions.create({
    ...options,
    messages: [
      ...messages,
      first.choices[0].message,
      { role: "tool", tool_call_id: call.id, content: '{"temperature": 17, "sky": "rainy"}' },
    ],
  });
  assert.match(answer.choices[0].message.content, /17/);
});

test("completions, responses and embeddings", async () => {
  const completion = await client.completions.create({ ...GREEDY, prompt: "Once", max_tokens: 8 });
  assert.equal(completion.usage.completion_tokens, 8);
  const response = await client.responses.create({ model: "demo", input: "Hello", temperature: 0 });
  assert.equal(response.status, "completed");
  const chat = await client.chat.completions.create({ ...GREEDY, messages: HELLO });
  assert.equal(response.output_text, chat.choices[0].message.content);
  const embedded = await client.embeddings.create({ model: "demo", input: ["a", "b"] });
  assert.equal(embedded.data.length, 2);
  const length = Math.hypot(...embedded.data[0].embedding);
  assert.ok(Math.abs(length - 1) < 1e-3, `of length ${length}`);
});

test("a streamed response has its reasoning, as a summary where that is asked for", async () => {
  const input = "A train travels 120 km in 2 hours. What is its average speed?";
  const asked = { model: "demo", input, temperature: 0 };
  const reasoning = { effort: "low" };
  const summarized = { ...reasoning, summary: "auto" };
  const texts = [];
  for (const [options, type, field] of [
    [reasoning, "reasoning_text", "content"],
    [summarized, "summary_text", "summary"],
  ]) {
    const stream = client.responses.stream({ ...asked, reasoning: options });
    let text = "";
    for await (const event of stream) {
      if (/^response.reasoning(_summary)?_text.delta$/.test(event.type)) text += event.delta;
    }
    const [first] = (await stream.finalResponse()).output;
    assert.equal(first.type, "reasoning");
    assert.ok(text.length > 0);
    assert.deepEqual(first[field], [{ type, text }]);
    texts.push(text);
  }
  assert.equal(texts[0], texts[1]);
});

test("a picture is described", async () => {
  const url = `data:image/png;base64,${process.env.SNAPLLM_PICTURE}`;
  const content = [
    { type: "image_url", image_url: { url } },
    { type: "text", text: "What is in this image?" },
  ];
  const chat = await client.chat.completions.create({
    ...GREEDY,
    messages: [{ role: "user", content }],
  });
  assert.equal(chat.choices[0].message.content, "A red circle on the left.");
});

test("errors are of the client's own classes", async () => {
  await assert.rejects(
    client.chat.completions.create({ model: "nobody", messages: HELLO }),
    NotFoundError,
  );
  await assert.rejects(
    client.chat.completions.create({ ...GREEDY, messages: HELLO, temperature: -1 }),
    (error) => error instanceof BadRequestError && error.param === "temperature",
  );
});

test("a stream that is left ends its request", async () => {
  const { requests_cancelled: before } = await stats();
  const stream = await client.chat.completions.create({
    ...GREEDY,
    messages: HELLO,
    max_tokens: 30_000, // far more than anybody waits for
    ignore_eos: true,
    stream: true,
  });
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
  assert.ok(stream.controller.signal.aborted);
  const deadline = Date.now() + 30_000;
  while ((await stats()).requests_running > 0) {
    assert.ok(Date.now() < deadline, "the request is still running");
    await setTimeout(20);
  }
  assert.equal((await stats()).requests_cancelled, before + 1);
});
