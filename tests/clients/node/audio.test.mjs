// The official Node client and the sound routes, against the gateway on a scripted model.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createReadStream } from "node:fs";
import { test } from "node:test";
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: `${process.env.GATEWAY_URL}/v1`, apiKey: "none", maxRetries: 0 });
const { SOUND, TEXT } = process.env;
const model = "ear";
const file = async () => toFile(await readFile(SOUND), "a.wav");

test("a transcription of a stream of bytes", async () => {
  const answer = await client.audio.transcriptions.create({ model, file: createReadStream(SOUND) });
  assert.equal(answer.text, TEXT);
  assert.equal(answer.usage.type, "tokens");
});

test("segments and words", async () => {
  const answer = await client.audio.transcriptions.create({
    model,
    file: await file(),
    response_format: "verbose_json",
    timestamp_granularities: ["word", "segment"],
    language: "en",
  });
  assert.equal(answer.language, "english");
  assert.deepEqual(answer.words.map(({ word }) => word), TEXT.split(" "));
  assert.equal(answer.segments.length, 2);
});

test("subtitles", async () => {
  const answer = await client.audio.transcriptions.create({ model, file: await file(), response_format: "vtt" });
  assert.ok(answer.startsWith("WEBVTT\n\n00:00:00.500 --> "));
});

test("a stream", async () => {
  const stream = await client.audio.transcriptions.create({
    model,
    file: await file(),
    stream: true,
    include: ["logprobs"],
    chunking_strategy: { type: "server_vad", threshold: 0.5, prefix_padding_ms: 100 },
  });
  let text = "";
  const types = [];
  for await (const event of stream) {
    types.push(event.type);
    text += event.delta ?? "";
    if (event.type === "transcript.text.done") {
      assert.equal(event.text, text);
      assert.ok(event.usage.total_tokens > 0);
    }
  }
  assert.equal(text, TEXT);
  assert.deepEqual(types, ["transcript.text.delta", "transcript.text.delta", "transcript.text.done"]);
});

test("a transcription that is given up", async () => {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 500);
  const asked = client.audio.transcriptions.create(
    { model: "ear-slow", file: await file(), stream: true },
    { signal: controller.signal },
  );
  await assert.rejects(asked, OpenAI.APIUserAbortError);
});

test("a translation", async () => {
  const answer = await client.audio.translations.create({ model, file: await file() });
  assert.equal(answer.text, TEXT.replaceAll("u", "t"));
});

test("a language that there is not", async () => {
  await assert.rejects(client.audio.transcriptions.create({ model, file: await file(), language: "xx" }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "language");
    return true;
  });
});
