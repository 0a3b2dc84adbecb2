"""The Triton of one host: scripted (`scripted ADDRESS PORT NAME`) or real (`real ADDRESS PORT REPOSITORY FOLDER`)."""

import asyncio
import signal
import sys
import time
from pathlib import Path

from tests.fakes.scripted_model import DrawImages, Echo, Say, ScriptedModel
from tests.fakes.triton import FakeTriton
from tritonic.embedded import EmbeddedTriton


def scripted_models(server: str) -> list[ScriptedModel]:
    """Return models that say on which server they run."""
    return [
        ScriptedModel("quick", (Say(server), Say("", "stop"))),
        ScriptedModel("slow", (Say(server), Echo(1, pause=0.1), Say("", "stop"))),
        ScriptedModel("painter", (DrawImages(5, pause=0.3),), is_image_model=True),
        ScriptedModel("patient-painter", (DrawImages(20, pause=0.5),), is_image_model=True),
    ]


async def run_scripted(address: str, port: int, name: str) -> None:
    await FakeTriton(scripted_models(name), host=address, port=port).start()
    await asyncio.Event().wait()


def run_real(address: str, port: int, repository: str, folder: str) -> int:
    class HostTriton(EmbeddedTriton):
        host = address

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with HostTriton(repository, grpc_port=port, metrics_port=port + 1, secret="", folder=Path(folder)) as triton:
        while triton.poll() is None:
            time.sleep(0.2)
    return 1


if __name__ == "__main__":
    if sys.argv[1] == "scripted":
        asyncio.run(run_scripted(sys.argv[2], int(sys.argv[3]), sys.argv[4]))
    else:
        sys.exit(run_real(sys.argv[2], int(sys.argv[3]), *sys.argv[4:]))
