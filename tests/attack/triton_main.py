"""A scripted Triton in a process of its own, so that nothing that the tests do slows it down. Run as a module.

It writes its port into the first line of its output, and ends when its input does.
"""

import asyncio
import sys

from tests.fakes.scripted_model import DrawImages, Pause, Say, ScriptedModel
from tests.fakes.triton import FakeTriton

MODELS = [
    ScriptedModel("hello", (Say("Hello", "stop"),)),
    # Takes its time, as models do: requests of it are open beside one another.
    ScriptedModel("slow", (Say("a"), Pause(0.3), Say("b", "stop"))),
    ScriptedModel("silent", (Say("a"), Pause(60))),
    ScriptedModel("vectors", is_embedding_model=True),
    ScriptedModel("sighted", (Say("A cat.", "stop"),), parameters={"modalities": '["text", "image"]'}),
    ScriptedModel("shapes", (DrawImages(1),), is_image_model=True),
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
