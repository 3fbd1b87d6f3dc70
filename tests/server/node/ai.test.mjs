// Vercel's AI SDK with its default provider of OpenAI models, the Responses API.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, tool } from "ai";
import { z } from "zod";

// The SDK drops the temperature of a model that reasons; these answers are not to be drawn.
const greedily = (url, init) =>
  fetch(url, { ...init, body: JSON.stringify({ ...JSON.parse(init.body), temperature: 0 }) });
const openai = createOpenAI({
  baseURL: `${process.env.SNAPLLM_URL}/v1`,
  apiKey: "snapllm",
  fetch: greedily,
});
const model = openai("demo");
const weather = tool({
  description: "Get the current weather for a location",
  inputSchema: z.object({ location: z.string() }),
  execute: async () => "18 degrees and sunny",
});
const ask = (content) => ({ role: "user", content });

async function inTwoTurns(question, options) {
  const messages = [ask(question)];
  const first = await generateText({ model, messages, ...options });
  messages.push(...first.response.messages, ask("What is the capital of France?"));
  const second = await generateText({ model, messages, ...options });
  assert.match(second.text, /Paris/);
  return [first, second];
}

test("a second turn refers to the items of the first", async () => {
  const [first] = await inTwoTurns("What is the capital of Japan?", {});
  assert.match(first.text, /Tokyo/);
});

test("a tool is called in one step and its result used in the next", async () => {
  const tools = { get_weather: weather };
  const options = { tools, stopWhen: stepCountIs(4) };
  const [first] = await inTwoTurns("What's the weather in Paris?", options);
  assert.equal(first.steps.length, 2);
  assert.match(first.text, /18/);
});

test("reasoning of an answer that is not stored is carried to the next turn", async () => {
  const reasoning = { store: false, reasoningEffort: "medium", forceReasoning: true };
  const providerOptions = { openai: reasoning };
  const [first, second] = await inTwoTurns("What is 27 + 45?", { providerOptions });
  assert.ok(first.usage.outputTokenDetails.reasoningTokens > 0);
  const warned = second.warnings.map((warning) => JSON.stringify(warning)).join();
  assert.ok(!warned.includes("encrypted"), warned);
});
