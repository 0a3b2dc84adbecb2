"""A scripted Triton in a process of its own, so that nothing that the tests do slows it down. Run as a module.

It writes its port into the first line of its output, and ends when its input does.
"""

import asyncio
import sys

from tests.fakes.script import Draw, Model, Pause, Say
from tests.fakes.triton import FakeTriton

CAST = [
    Model("hello", (Say("Hello", "stop"),)),
    # Takes its time, as models do: requests of it are open beside one another.
    Model("slow", (Say("a"), Pause(0.3), Say("b", "stop"))),
    Model("silent", (Say("a"), Pause(60))),
    Model("vectors", embedding=True),
    Model("sighted", (Say("A cat.", "stop"),), parameters={"modalities": '["text", "image"]'}),
    Model("shapes", (Draw(1),), drawing=True),
    Model("slow-painter", (Draw(4, pause=5.0),), drawing=True),
]


async def _serve() -> None:
    triton = await FakeTriton(CAST).start()
    sys.stdout.write(f"{triton.port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await triton.stop()


if __name__ == "__main__":
    asyncio.run(_serve())
