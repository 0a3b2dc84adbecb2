"""A real gateway in a process of its own that tells how long its loop was held. Run as a module.

Every line on standard input begins a measurement and prints the one that ends: JSON with `held`, the longest CPU time
of the loop's thread between two beats in seconds, `starved`, the same of the whole process (what a thread does
without giving up the interpreter keeps the loop from beating), `used`, the CPU time of the process, and `grown`, the
growth of its resident memory at the worst moment in bytes.
"""

import asyncio
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn

from gateway.app import create_app
from gateway.settings import Settings

HEARTBEAT_SECONDS = 0.002


def _memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name + ":"))


class LoopMeter:
    """Beats on the loop, and remembers the longest time between two beats."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.begin()
        self._beat()

    def begin(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self._at_first, self._memory_at_first = time.process_time(), _memory("VmRSS")
        self._thread, self._process = time.thread_time(), time.process_time()
        self._held = self._starved = 0.0

    def _beat(self) -> None:
        thread, process = time.thread_time(), time.process_time()
        self._held = max(self._held, thread - self._thread)
        self._starved = max(self._starved, process - self._process)
        self._thread, self._process = thread, process
        self._loop.call_later(HEARTBEAT_SECONDS, self._beat)

    def end(self) -> dict[str, Any]:
        self._held = max(self._held, time.thread_time() - self._thread)
        return {
            "held": self._held,
            "starved": self._starved,
            "used": time.process_time() - self._at_first,
            "grown": _memory("VmHWM") - self._memory_at_first,
        }


class _Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        gc.freeze()
        loop = asyncio.get_running_loop()
        heart = LoopMeter(loop)

        def told() -> None:
            if not os.read(0, 64):
                self.should_exit = True
                loop.remove_reader(0)
                return
            os.write(1, json.dumps(heart.end()).encode() + b"\n")
            heart.begin()

        loop.add_reader(0, told)


if __name__ == "__main__":
    settings = Settings()
    config = uvicorn.Config(
        create_app(settings), host="127.0.0.1", port=settings.port, loop="uvloop", log_config=None, access_log=False
    )
    _Server(config).run()
    sys.exit()
