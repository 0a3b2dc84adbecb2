"""Runs the gateway in this process, or in several worker processes at the same port."""

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
"""Unsent bytes that the kernel buffers for a client that does not read. The default is several megabytes a stream."""

_TCP_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""TCP keep-alive: seconds of silence, seconds between probes, and number of probes. Without an answer the kernel closes
the connection, for example when the client's machine was switched off while it waited for a response."""

_TICK_SECONDS = 1.0
"""Seconds between two ticks of the server, which update the `Date` header."""

DRAIN_SECONDS = 10
"""Seconds for which responses may go on after the signal to stop."""

SHUTDOWN_SECONDS = 14.5
"""Seconds from that signal to the end of the process: first responses, then tasks, which get 4 s. `up` kills it after
15 s."""


def serve(settings: Settings) -> bool:
    """Serve until SIGTERM or SIGINT, then let responses finish for DRAIN_SECONDS.

    Return whether the server had started. After SIGTERM the process ends by that signal, as uvicorn's own command does,
    and after SHUTDOWN_SECONDS in any case.
    Raises PortError when the address cannot be used.
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
    settings: Settings,
    context: WorkerContext,
    listening: socket.socket,
    on_started: Callable[[], None],
    on_heartbeat: OnHeartbeat,
) -> None:
    """Serve as one worker of several. A `RunWorker` of `tritonic.workers`."""
    with contextlib.suppress(KeyboardInterrupt):
        _build_server(settings, context, on_started, on_heartbeat).run(sockets=[_with_socket_options(listening)])


class _Server(uvicorn.Server):
    """A uvicorn server that calls `on_started` when it serves, and wakes once a second instead of ten times."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None], monitor: EventLoopMonitor) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._monitor = monitor
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            # All objects so far live for ever. Without freeze, each full garbage collection scans them and
            # delays every stream.
            gc.collect()
            gc.freeze()
            self._on_started()

    async def main_loop(self) -> None:
        """Tick each second until the server must exit. uvicorn's own loop wakes ten times a second."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._ending.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._monitor.exit_within(SHUTDOWN_SECONDS)
        if self._loop:
            self._loop.call_soon_threadsafe(self._ending.set)


def _build_server(
    settings: Settings, context: WorkerContext, on_started: Callable[[], None], on_heartbeat: OnHeartbeat | None
) -> _Server:
    app = create_app(settings, context)
    monitor: EventLoopMonitor = app.state.event_loop
    monitor.exit_when_blocked(settings.hang_timeout, on_heartbeat)
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
        proxy_headers=False,  # `ProxyHeaders` does that.
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return _Server(config, on_started, monitor)


def _with_socket_options(listening: socket.socket) -> socket.socket:
    """Set the socket options of connections on the listening socket, from which they inherit them."""
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOTSENT_LOWAT_BYTES)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_KEEPALIVE.items():
        listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return listening
