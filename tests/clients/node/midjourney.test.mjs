// The npm package uniai and the Midjourney routes, against the gateway on a scripted model. Its pictures are files of
// the folder where it runs.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import uniai from "uniai";

const UniAI = uniai.default;
const client = new UniAI({ MidJourney: { proxy: process.env.GATEWAY_URL, token: "sk-a" } });
const provider = "midjourney";

async function finished(id) {
  for (;;) {
    const [task] = await client.task(provider, id);
    if (task.progress === 100 || task.fail) return task;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

test("a grid, and a picture of it", async () => {
  const options = { provider, width: 1024, height: 1024, negativePrompt: "blue" };
  const { taskId } = await client.imagine("a red circle", options);
  assert.equal(typeof taskId, "string");
  const grid = await finished(taskId);
  assert.deepEqual([grid.id, grid.type, grid.fail], [taskId, "IMAGINE", ""]);
  const upscaled = await client.change(provider, taskId, "UPSCALE", 4);
  const single = await finished(upscaled.taskId);
  assert.equal(single.type, "UPSCALE");
  const [file] = single.imgs;
  assert.equal((await readFile(file)).subarray(1, 4).toString(), "PNG");
});

test("a list", async () => {
  const { taskId } = await client.imagine("a blue circle", { provider });
  await finished(taskId);
  const tasks = await client.task(provider);
  const found = tasks.find((task) => task.id === taskId);
  assert.equal(found.progress, 100);
  assert.match(found.imgs[0], /^http/);
});

test("a refusal", async () => {
  await assert.rejects(client.imagine("a red circle --nothing 1", { provider }), /Unknown parameters: --nothing/);
  await assert.rejects(client.change(provider, "task_0", "UPSCALE", 1));
});
