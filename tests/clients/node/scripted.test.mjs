// The official Node client, against the gateway on scripted models (tests/wire/cast.py).
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: `${process.env.GATEWAY_URL}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Hello!" }];
const GREETING = "\n\nHello there, how may I assist you today?";
const Something = z.object({ a: z.number().int() });

test("a chat", async () => {
  const { data, response, request_id } = await client.chat.completions
    .create({ model: "hello", messages })
    .withResponse();
  assert.equal(data.choices[0].message.content, GREETING);
  assert.equal(data.usage.total_tokens, 18);
  assert.equal(response.headers.get("content-type"), "application/json");
  assert.ok(request_id);
});

test("a streamed chat", async () => {
  const stream = await client.chat.completions.create({
    model: "hello",
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, GREETING);
  assert.equal(usage.total_tokens, 18);
});

test("the stream helper puts several answers together", async () => {
  const stream = client.chat.completions.stream({ model: "trio", messages, n: 3 });
  const final = await stream.finalChatCompletion();
  assert.deepEqual(final.choices.map((choice) => choice.message.content), ["abc", "1", "xyz"]);
  assert.deepEqual(final.choices.map((choice) => choice.finish_reason), ["length", "stop", "stop"]);
});

test("log probabilities, whole and streamed", async () => {
  const asked = { model: "odds", messages, logprobs: true, top_logprobs: 2 };
  const whole = await client.chat.completions.create(asked);
  const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
  assert.equal(whole.choices[0].logprobs.content.length, 3);
  assert.deepEqual(streamed.choices[0].logprobs.content, whole.choices[0].logprobs.content);
});

for (const stream of [false, true]) {
  const way = stream ? "streamed" : "whole";

  test(`the runner calls a function that the model chose, ${way}`, async () => {
    const given = [];
    const runner = client.chat.completions.runTools(
      {
        model: "caller",
        messages,
        stream,
        tools: [zodFunction({ name: "f", parameters: Something, function: (args) => given.push(args) && "2" })],
      },
      { maxChatCompletions: 2 },
    );
    // The scripted model calls every time it is asked: the last word is a call that is not answered any more.
    await runner.done();
    assert.deepEqual(given, [{ a: 1 }, { a: 1 }]);
    const results = runner.messages.filter((message) => message.role === "tool");
    assert.deepEqual(results.map((message) => message.content), ["2", "2"]);
  });

  test(`the runner calls the function that was named, ${way}`, async () => {
    const given = [];
    const runner = client.chat.completions.runTools({
      model: "named",
      messages,
      stream,
      tool_choice: { type: "function", function: { name: "f" } },
      tools: [zodFunction({ name: "f", parameters: Something, function: (args) => given.push(args) && "2" })],
    });
    await runner.done();
    assert.deepEqual(given, [{ a: 1 }]);
  });
}

test("an answer is parsed by its schema, whole and streamed", async () => {
  const asked = { model: "named", messages, response_format: zodResponseFormat(Something, "something") };
  const whole = await client.chat.completions.parse(asked);
  const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
  assert.deepEqual(whole.choices[0].message.parsed, { a: 1 });
  assert.deepEqual(streamed.choices[0].message.parsed, { a: 1 });
});

test("completions, whole and streamed", async () => {
  const whole = await client.completions.create({ model: "hello", prompt: ["a", "b"] });
  assert.deepEqual(whole.choices.map((choice) => choice.text), [GREETING, GREETING]);
  let text = "";
  for await (const chunk of await client.completions.create({ model: "hello", prompt: "a", stream: true })) {
    text += chunk.choices[0].text;
  }
  assert.equal(text, GREETING);
});

test("embeddings, which the client asks for in base64 unless told otherwise", async () => {
  for (const more of [{}, { encoding_format: "float" }]) {
    const answer = await client.embeddings.create({ model: "vectors", input: ["three", "e"], ...more });
    assert.deepEqual(answer.data.map((entry) => Array.from(entry.embedding)), [[5, 2], [1, 1]]);
    assert.equal(answer.usage.prompt_tokens, 6);
  }
});

test("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("org/served"));
  assert.equal((await client.models.retrieve("org/served")).owned_by, "org");
});

for (const [model, options, kind, status] of [
  ["hello", { temperature: 3 }, OpenAI.BadRequestError, 400],
  ["too-long", {}, OpenAI.BadRequestError, 400],
  ["nothing", {}, OpenAI.NotFoundError, 404],
  ["full", {}, OpenAI.RateLimitError, 429],
  ["broken", {}, OpenAI.InternalServerError, 502],
]) {
  for (const stream of [false, true]) {
    test(`${model} fails with ${status}, ${stream ? "streamed" : "whole"}`, async () => {
      const failure = await client.chat.completions.create({ model, messages, stream, ...options }).catch((e) => e);
      assert.ok(failure instanceof kind, String(failure));
      assert.equal(failure.status, status);
      assert.ok(failure.code && failure.type && failure.requestID);
    });
  }
}

test("what fails late is thrown by the stream", async () => {
  const stream = await client.chat.completions.create({ model: "broken-later", messages, stream: true });
  let text = "";
  const failure = await (async () => {
    for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
  })().catch((e) => e);
  assert.ok(failure instanceof OpenAI.APIError, String(failure));
  assert.equal(failure.code, "model_failed");
  assert.equal(text, "ab");
});

test("the client tries again when it is told to", async () => {
  const started = performance.now();
  const patient = client.withOptions({ maxRetries: 1 });
  await assert.rejects(patient.chat.completions.create({ model: "full", messages }), OpenAI.RateLimitError);
  assert.ok(performance.now() - started >= 1900);
});

test("abort() leaves a stream", async () => {
  const stream = await client.chat.completions.create({ model: "endless", messages, stream: true });
  let chunks = 0;
  for await (const _ of stream) {
    if (++chunks === 3) stream.controller.abort();
  }
  assert.ok(chunks >= 3 && chunks < 100);
});

test("a signal leaves a request that is not answered yet", async () => {
  const signal = AbortSignal.timeout(300);
  const asking = client.chat.completions.create({ model: "silent", messages }, { signal });
  await assert.rejects(asking, OpenAI.APIUserAbortError);
});

test("speech, as a whole file and as a stream", async () => {
  const asked = { model: "hibari", voice: "alloy", input: "One sentence. And one more.", response_format: "wav" };
  const whole = Buffer.from(await (await client.audio.speech.create(asked)).arrayBuffer());
  assert.equal(whole.subarray(0, 4).toString(), "RIFF");
  // 27 characters less the space between the sentences, 0.02 seconds each, 24,000 samples a second of two bytes.
  assert.equal(whole.length, 44 + 26 * 0.02 * 24000 * 2);
  const response = await client.audio.speech.create({ ...asked, model: "slow-speaker", response_format: "mp3" });
  assert.equal(response.headers.get("content-type"), "audio/mpeg");
  let first;
  const started = Date.now();
  for await (const chunk of response.body) first ??= [chunk.length, Date.now() - started];
  assert.ok(first[0] > 0 && Date.now() - started - first[1] > 50, "the first bytes come a sentence earlier");
});

test("speech as events", async () => {
  const response = await client.audio.speech.create({
    model: "hibari", voice: { id: "adam" }, input: "One. Two is longer.", response_format: "pcm", stream_format: "sse",
  });
  const events = (await response.text()).split("\n\n").filter((event) => event.includes("data: {"));
  const data = events.map((event) => JSON.parse(event.split("data: ")[1]));
  assert.deepEqual(data.map(({ type }) => type), ["speech.audio.delta", "speech.audio.delta", "speech.audio.done"]);
  assert.ok(data.at(-1).usage.output_tokens > 0);
});

test("a voice that does not exist is an error of the client's", async () => {
  const asked = client.audio.speech.create({ model: "hibari", voice: "nobody", input: "Hello." });
  await assert.rejects(asked, (error) => error.status === 400 && error.param === "voice");
});

test("a spoken answer, whole and streamed", async () => {
  const asked = { model: "hello", messages, modalities: ["text", "audio"] };
  const whole = await client.chat.completions.create({ ...asked, audio: { voice: "alloy", format: "wav" } });
  const { audio, content } = whole.choices[0].message;
  assert.equal(content, null);
  assert.equal(audio.transcript, GREETING);
  assert.equal(Buffer.from(audio.data, "base64").subarray(0, 4).toString(), "RIFF");
  const stream = client.chat.completions.stream({ ...asked, audio: { voice: "alloy", format: "pcm16" } });
  let data = "";
  for await (const chunk of stream) data += chunk.choices[0].delta.audio?.data ?? "";
  assert.ok(Math.abs(Buffer.from(data, "base64").length - Buffer.from(audio.data, "base64").length + 44) < 4);
  const next = [...messages, { role: "assistant", audio: { id: audio.id } }, { role: "user", content: "Go on." }];
  assert.ok((await client.chat.completions.create({ model: "hello", messages: next })).choices[0].message.content);
});
