"""A gateway that measures itself. Run as a module.

A line on standard input ends a measurement, prints it as JSON, and begins the next one. A timer of the event loop, the
heartbeat, splits a measurement into intervals:

* `held`: the longest CPU time of the loop's thread in one interval, in seconds
* `starved`: the longest CPU time of the whole process in one interval, in seconds. A thread that does not release the
  interpreter lock delays the heartbeat.
* `used`: CPU time of the process, in seconds
* `grown`: peak growth of its resident memory, in bytes
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
"""Seconds between two heartbeats."""


def _memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name + ":"))


class LoopMeter:
    """Runs the heartbeat of an event loop, and measures between `begin` and `end`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.begin()
        self._beat()

    def begin(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak
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
        meter = LoopMeter(loop)

        def on_line() -> None:
            if not os.read(0, 64):
                self.should_exit = True
                loop.remove_reader(0)
                return
            os.write(1, json.dumps(meter.end()).encode() + b"\n")
            meter.begin()

        loop.add_reader(0, on_line)


if __name__ == "__main__":
    settings = Settings()
    config = uvicorn.Config(
        create_app(settings), host="127.0.0.1", port=settings.port, loop="uvloop", log_config=None, access_log=False
    )
    _Server(config).run()
    sys.exit()
