"""The gateway under one of several servers: `python -m benchmarks.asgi_launch SERVER PORT`.

Settings are in the environment. Each is set up as its documentation advises for one process: uvloop as the loop, no log
of accesses, no websockets.
"""

import asyncio
import os
import sys

from fastapi import FastAPI

from gateway.app import create_app
from gateway.settings import Settings

DRAIN_SECONDS = 10


def application() -> FastAPI:
    """What Granian calls in its worker."""
    return create_app()


def granian(port: int) -> None:
    """One worker with one thread of Rust's, as many as uvicorn has."""
    from granian import Granian  # type: ignore[import-not-found, unused-ignore]

    Granian(
        "benchmarks.asgi_launch:application",
        factory=True,
        port=port,
        interface="asgi",
        loop="uvloop",
        http="1",
        websockets=False,
        workers=1,
        workers_kill_timeout=DRAIN_SECONDS,
    ).serve()


def hypercorn(port: int) -> None:
    """Its asyncio worker, on uvloop."""
    import uvloop
    from hypercorn.asyncio import serve  # type: ignore[import-not-found, unused-ignore]
    from hypercorn.config import Config  # type: ignore[import-not-found, unused-ignore]

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.graceful_timeout = DRAIN_SECONDS

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (2, 15):
            loop.add_signal_handler(number, stop.set)
        await serve(application(), config, shutdown_trigger=stop.wait)  # type: ignore[arg-type, unused-ignore]

    uvloop.run(run())


def uvicorn(port: int) -> None:
    """As `tritonic serve` has it."""
    from tritonic.serve import serve

    serve(Settings(port=port))


SERVERS = {"uvicorn": uvicorn, "granian": granian, "hypercorn": hypercorn}

if __name__ == "__main__":
    os.environ["TRITONIC_PORT"] = sys.argv[2]
    SERVERS[sys.argv[1]](int(sys.argv[2]))
