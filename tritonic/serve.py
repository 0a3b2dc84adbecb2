"""Runs the gateway in this process, or in several that answer at the same port."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable

import uvicorn

from gateway.app import create_app
from gateway.crew import Crew
from gateway.settings import Settings
from tritonic.heads import LimitedHeads
from tritonic.ports import listen
from tritonic.workers import keep_workers

_UNSENT_BYTES = 128 * 1024
"""What the kernel keeps for a client that does not read; else it is several megabytes of each stream."""

DRAIN_SECONDS = 10
"""How long answers may go on after the signal to stop."""


def serve(settings: Settings) -> bool:
    """Serve until SIGTERM or SIGINT, then let answers finish for DRAIN_SECONDS.

    Returns whether it had started. After SIGTERM the process ends by that signal, as uvicorn's own command does.
    Raises PortError when the address cannot be listened on.
    """
    listening = listen(settings.host, settings.port, "the gateway", "--port or TRITONIC_PORT")
    if settings.workers == 1:
        server = _server(settings, Crew(), lambda: None)
        with listening, contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[_sparing(listening)])
        return server.started
    ended_by = keep_workers(settings, listening, _work)
    if ended_by == signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return ended_by != 0


def _work(settings: Settings, crew: Crew, listening: socket.socket, started: Callable[[], None]) -> None:
    """Serve as one of several workers."""
    with contextlib.suppress(KeyboardInterrupt):
        _server(settings, crew, started).run(sockets=[_sparing(listening)])


class _Server(uvicorn.Server):
    """Tells when it has started."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()


def _server(settings: Settings, crew: Crew, started: Callable[[], None]) -> _Server:
    config = uvicorn.Config(
        create_app(settings, crew),
        loop="uvloop",
        http=LimitedHeads,
        ws="none",
        log_config=None,  # The gateway has configured its own.
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return _Server(config, started)


def _sparing(listening: socket.socket) -> socket.socket:
    """Connections have it from the socket that they came to."""
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    return listening
