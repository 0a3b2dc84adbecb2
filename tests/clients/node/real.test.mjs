// The official Node client, against the gateway on the default model in a real Triton.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: `${process.env.GATEWAY_URL}/v1`, apiKey: "none", maxRetries: 0, timeout: 120_000 });
const model = process.env.MODEL;
const question = { model, messages: [{ role: "user", content: "What is the capital of France?" }], temperature: 0, max_tokens: 60 };

test("the same answer, whole and streamed", async () => {
  const whole = await client.chat.completions.create(question);
  const streamed = await client.chat.completions.stream(question).finalChatCompletion();
  assert.match(whole.choices[0].message.content, /Paris/);
  assert.equal(streamed.choices[0].message.content, whole.choices[0].message.content);
});

test("an answer that has to fit a schema", async () => {
  const City = z.object({ name: z.string().max(20), large: z.boolean() });
  const answer = await client.chat.completions.parse({ ...question, response_format: zodResponseFormat(City, "city") });
  assert.deepEqual(Object.keys(answer.choices[0].message.parsed), ["name", "large"]);
});

for (const stream of [false, true]) {
  test(`the runner calls the function that has to be called, ${stream ? "streamed" : "whole"}`, async () => {
    const given = [];
    const runner = client.chat.completions.runTools({
      ...question,
      stream,
      tool_choice: { type: "function", function: { name: "get_weather" } },
      tools: [
        zodFunction({
          name: "get_weather",
          parameters: z.object({ city: z.string().max(20) }),
          function: (args) => given.push(args) && "It is sunny.",
        }),
      ],
    });
    await runner.done();
    assert.equal(given.length, 1);
    assert.equal(typeof given[0].city, "string");
  });
}

test("log probabilities", async () => {
  const answer = await client.chat.completions.create({ ...question, logprobs: true, top_logprobs: 2 });
  const { content } = answer.choices[0].logprobs;
  assert.equal(content.map((entry) => entry.token).join(""), answer.choices[0].message.content);
  assert.ok(content.every((entry) => entry.logprob <= 0 && entry.top_logprobs.length === 2));
});

test("abort() leaves a stream, and the next is served", async () => {
  const stream = await client.chat.completions.create({ ...question, stream: true, max_tokens: 2000, ignore_eos: true });
  for await (const _ of stream) break;
  assert.match((await client.chat.completions.create(question)).choices[0].message.content, /Paris/);
});
