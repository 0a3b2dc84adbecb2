"""Runs the gateway in this process, or in several that answer at the same port."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn

from gateway.app import create_app
from gateway.observability.event_loop import EventLoopMonitor
from gateway.settings import Settings
from gateway.worker_context import WorkerContext
from tritonic.fd_limits import max_connections, raise_limit
from tritonic.http_server.connections import ConnectionLimits, ConnectionTable
from tritonic.http_server.protocol import BoundedProtocol
from tritonic.http_server.proxy_headers import ProxyHeaders
from tritonic.malloc import set_mmap_threshold
from tritonic.ports import bind_socket
from tritonic.workers import OnHeartbeat, run_workers

_NOTSENT_LOWAT_BYTES = 128 * 1024
"""What the kernel keeps for a client that does not read; else it is several megabytes of each stream."""

_TCP_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Seconds and probes after which the kernel takes a client for gone that it hears nothing of: one whose machine was
switched off while it waits for an answer."""

_TICK_SECONDS = 1.0

DRAIN_SECONDS = 10
"""How long answers may go on after the signal to stop."""

SHUTDOWN_SECONDS = 14.5
"""How long the process may take to end after it: answers, then tasks, which have 4 s. `up` kills it after 15 s."""


def serve(settings: Settings) -> bool:
    """Serve until SIGTERM or SIGINT, then let answers finish for DRAIN_SECONDS.

    Returns whether it had started. After SIGTERM the process ends by that signal, as uvicorn's own command does, and
    after END_SECONDS in any case.
    Raises PortError when the address cannot be listened on.
    """
    raise_limit()
    set_mmap_threshold()
    listening = bind_socket(settings.host, settings.port, "the gateway", "--port or TRITONIC_PORT")
    if settings.workers == 1:
        server = _build_server(settings, WorkerContext(), lambda: None, None)
        with listening, contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[_with_socket_options(listening)])
        return server.started
    ended_by = run_workers(settings, listening, _serve_worker)
    if ended_by == signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return ended_by != 0


def _serve_worker(
    settings: Settings, crew: WorkerContext, listening: socket.socket, started: Callable[[], None], beaten: OnHeartbeat
) -> None:
    """Serve as one of several workers."""
    with contextlib.suppress(KeyboardInterrupt):
        _build_server(settings, crew, started, beaten).run(sockets=[_with_socket_options(listening)])


class _Server(uvicorn.Server):
    """Tells when it has started, and sleeps where there is nothing to do."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None], watch: EventLoopMonitor) -> None:
        super().__init__(config)
        self._on_started = started
        self._watch = watch
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            # What is there now stays: looking through all of it for garbage holds every stream up.
            gc.collect()
            gc.freeze()
            self._on_started()

    async def main_loop(self) -> None:
        """Set the clock of the answers each second, and wait for the end. uvicorn wakes ten times a second."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._ending.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._watch.exit_within(SHUTDOWN_SECONDS)
        if self._loop:
            self._loop.call_soon_threadsafe(self._ending.set)


def _build_server(
    settings: Settings, crew: WorkerContext, started: Callable[[], None], beaten: OnHeartbeat | None
) -> _Server:
    app = create_app(settings, crew)
    watch: EventLoopMonitor = app.state.event_loop
    watch.exit_when_blocked(settings.hang_timeout, beaten)
    limits = ConnectionLimits(
        max_connections=max_connections(raise_limit(), settings.max_connections),
        head_timeout=settings.head_timeout,
        idle_timeout=settings.idle_timeout,
        send_timeout=settings.send_timeout,
    )
    config = uvicorn.Config(
        ProxyHeaders(cast(Any, app)),
        loop="uvloop",
        http=cast(Any, partial(BoundedProtocol, connections=ConnectionTable(limits))),
        ws="none",
        log_config=None,  # The gateway has configured its own.
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `Forwarded` stands for it.
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return _Server(config, started, watch)


def _with_socket_options(listening: socket.socket) -> socket.socket:
    """Connections have it from the socket that they came to."""
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOTSENT_LOWAT_BYTES)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_KEEPALIVE.items():
        listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return listening
