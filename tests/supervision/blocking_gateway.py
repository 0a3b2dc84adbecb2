"""`tritonic serve` with a route that blocks its event loop in several ways. Run as a module."""

import asyncio
import collections
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from gateway import app as gateway_app
from gateway.app import create_app
from tritonic import serve, settings


def _burn_cpu(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def _hold_gil() -> None:
    """Hold the interpreter lock for an hour: no signal handler and no other thread runs."""
    collections.deque(itertools.repeat(None, 10**12), maxlen=0)


def create_blocking_app(*given: Any) -> FastAPI:
    app = create_app(*given)

    @app.post("/tests/hold/{how}")
    async def hold(how: str, request: Request, seconds: float = 60) -> str:
        await request.body()
        os.write(2, b"blocking now\n")  # the tests wait for this line of the log
        if how == "c":
            _hold_gil()
        elif how == "python":
            _burn_cpu(seconds)
        elif how == "sleep":
            time.sleep(seconds)
        elif how == "thread":
            # The thread never gives the interpreter lock back.
            threading.Thread(target=_hold_gil, daemon=True).start()
        elif how == "drain":
            await asyncio.sleep(seconds)
        return "done"

    if os.environ.get("TESTS_NEVER_ENDS"):
        serve.SHUTDOWN_SECONDS = 1.5
        whole = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
            async with whole(app) as state:
                yield state
                await asyncio.sleep(3600)

        app.router.lifespan_context = lifespan
    return app


if __name__ == "__main__":
    serve.create_app = create_blocking_app  # type: ignore[assignment, attr-defined]  # replaces what `serve` imported
    gateway_app._FIRST_DISCOVERY_SECONDS = 0.1  # there is no Triton
    serve.serve(settings.read())
