// The official Node client and the video routes, against the gateway on a scripted model.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ baseURL: `${process.env.GATEWAY_URL}/v1`, apiKey: "sk-a", maxRetries: 0 });
const { FILM, PICTURE } = process.env;

async function finished(video) {
  while (video.status === "queued" || video.status === "in_progress") {
    await new Promise((resolve) => setTimeout(resolve, 50));
    video = await client.videos.retrieve(video.id);
  }
  return video;
}

const make = async (fields) => finished(await client.videos.create({ prompt: "a red circle", ...fields }));

test("a video and its files", async () => {
  const video = await make({ model: "sora-2", seconds: "4", size: "720x1280" });
  assert.deepEqual([video.object, video.status, video.seconds, video.progress], ["video", "completed", "4", 100]);
  const file = await client.videos.downloadContent(video.id);
  const data = Buffer.from(await file.arrayBuffer());
  assert.equal(file.headers.get("content-type"), "video/mp4");
  assert.equal(data.subarray(4, 8).toString(), "ftyp");
  const sheet = await client.videos.downloadContent(video.id, { variant: "spritesheet" });
  assert.equal(sheet.headers.get("content-type"), "image/jpeg");
});

test("a picture as the first frame", async () => {
  const video = await make({ input_reference: await toFile(await readFile(PICTURE), "a.png", { type: "image/png" }) });
  assert.equal(video.status, "completed");
});

test("a remix, an edit and an extension", async () => {
  const source = await make({});
  const remix = await finished(await client.videos.remix(source.id, { prompt: "a blue circle" }));
  assert.deepEqual([remix.status, remix.remixed_from_video_id], ["completed", source.id]);
  const video = await toFile(await readFile(FILM), "a.mp4", { type: "video/mp4" });
  const edit = await finished(await client.videos.edit({ prompt: "blue", video }));
  assert.equal(edit.status, "completed");
  const byId = await finished(await client.videos.edit({ prompt: "blue", video: { id: source.id } }));
  assert.equal(byId.remixed_from_video_id, source.id);
  const longer = await finished(await client.videos.extend({ prompt: "on", seconds: "4", video: { id: source.id } }));
  assert.deepEqual([longer.status, longer.seconds], ["completed", "4"]);
});

test("a list in pages, and a deletion", async () => {
  const video = await make({});
  const ids = [];
  for await (const { id } of client.videos.list({ limit: 2 })) ids.push(id);
  assert.equal(ids[0], video.id);
  assert.equal(new Set(ids).size, ids.length);
  const deleted = await client.videos.delete(video.id);
  assert.deepEqual([deleted.id, deleted.deleted, deleted.object], [video.id, true, "video.deleted"]);
  await assert.rejects(client.videos.retrieve(video.id), (error) => error.status === 404);
});

test("failures", async () => {
  await assert.rejects(
    client.videos.create({ prompt: "x", seconds: "12" }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "seconds",
  );
  const failed = await make({ model: "film-broken" });
  assert.deepEqual([failed.status, failed.error.code], ["failed", "model_failed"]);
  await assert.rejects(client.videos.downloadContent(failed.id), (error) => error.code === "not_ready");
});
