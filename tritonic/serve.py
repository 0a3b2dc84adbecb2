"""Runs the gateway in this process."""

import contextlib
import socket

import uvicorn

from gateway.app import create_app
from gateway.settings import Settings
from tritonic.heads import LimitedHeads
from tritonic.ports import listen

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
    # Connections have it from the socket that they came to.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    config = uvicorn.Config(
        create_app(settings),
        loop="uvloop",
        http=LimitedHeads,
        ws="none",
        log_config=None,  # The gateway has configured its own.
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = uvicorn.Server(config)
    with listening, contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    return server.started
