"""Runs a scripted Triton in a process of its own, so that the work of the tests does not slow it down.

It prints its port as the first line, and ends when its standard input is closed.
"""

import asyncio
import sys

from tests.fakes.scripted_model import DrawImages, Fail, Pause, Say, ScriptedModel
from tests.fakes.triton import FakeTriton

MODELS = [
    ScriptedModel("hello", (Say("Hello", "stop"),)),
    # It answers slowly, as real models do, so that several requests are open at a time.
    ScriptedModel("slow", (Say("a"), Pause(0.3), Say("b", "stop"))),
    ScriptedModel("silent", (Say("a"), Pause(60))),
    ScriptedModel("vectors", is_embedding_model=True),
    ScriptedModel("sighted", (Say("A cat.", "stop"),), parameters={"modalities": '["text", "image"]'}),
    ScriptedModel("shapes", (DrawImages(1),), is_image_model=True),
    # What costs the gateway comes before the model, which makes nothing.
    ScriptedModel("film", (Fail("[engine_failed] The engine stopped."),), is_video_model=True),
    ScriptedModel("slow-painter", (DrawImages(4, pause=5.0),), is_image_model=True),
]


async def _serve() -> None:
    triton = await FakeTriton(MODELS).start()
    sys.stdout.write(f"{triton.port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await triton.stop()


if __name__ == "__main__":
    asyncio.run(_serve())
