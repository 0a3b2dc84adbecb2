// The official Node client with the default models of sound: what one speaks, the other writes down.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: `${process.env.GATEWAY_URL}/v1`, apiKey: "none", maxRetries: 0 });
const { VOICE, LISTENER, TEXT } = process.env;

test("speech that is read as a stream, and transcribed whole and as a stream", async () => {
  const speech = await client.audio.speech.create({ model: VOICE, voice: "alloy", input: TEXT, response_format: "wav" });
  const parts = [];
  for await (const part of speech.body) parts.push(part);
  const file = await toFile(Buffer.concat(parts), "speech.wav");
  const whole = await client.audio.transcriptions.create({ model: LISTENER, file, language: "en" });
  assert.equal(whole.text, TEXT);
  const events = [];
  const stream = await client.audio.transcriptions.create({ model: LISTENER, file, language: "en", stream: true });
  for await (const event of stream) events.push(event);
  assert.equal(events.at(-1).type, "transcript.text.done");
  assert.equal(events.slice(0, -1).map(({ delta }) => delta).join(""), TEXT);
});
