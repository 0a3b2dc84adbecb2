"""Finds free ports, and the process that listens on a port in use."""

import contextlib
import errno
import random
import socket
from pathlib import Path

import psutil

from tritonic.errors import TritonicError


class PortError(TritonicError):
    """A port cannot be used; the message says why and what to do."""


def port_hint(option: str, variable: str | None = None) -> str:
    """Return how to choose another port for `up`, as the end of a sentence."""
    names = f"{option} or {variable}" if variable else option
    return f'{names} (make up ARGS="{option} 0" takes a free one)'


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return `count` different ports that are free now.

    They lie below the range of outgoing connections. Triton opens its ports only after it has loaded its models, and an
    outgoing connection could take a port of that range in the meantime.
    """
    lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    for port in random.sample(range(10_000, max(lowest_outgoing, 20_000)), 1000):
        if len(found) == count:
            break
        with contextlib.suppress(PortError):
            check_free(host, port, "a test", "another number")
            found.append(port)
    return found


def find_listener(port: int) -> str | None:
    """Return the process that listens on a TCP port, as `process 123 (nginx)`; None if this user may not see it."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.pid and tuple(connection.laddr)[1:2] == (port,):
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return None


def bind_socket(host: str, port: int, purpose: str, remedy: str) -> socket.socket:
    """Return a socket bound to the address.

    `purpose` names the user of the port for the error ("the gateway"), `remedy` how to choose another ("--port").
    A port other than 0 also listens already. Raises PortError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        if port:
            # Only listen() fails when another socket is bound to the port without listening.
            sock.listen(2048)
    except OSError as error:
        sock.close()
        raise PortError(_sentence(error, host, port, purpose, remedy)) from error
    return sock


def check_free(host: str, port: int, purpose: str, remedy: str) -> None:
    """Raise PortError if the port cannot be used now. Port 0 is always free."""
    if port:
        bind_socket(host, port, purpose, remedy).close()


def _sentence(error: OSError, host: str, port: int, purpose: str, remedy: str) -> str:
    if error.errno == errno.EADDRINUSE:
        by = find_listener(port) or "another program (run as root to see which)"
        return f"Port {port}, which {purpose} needs, is in use by {by}. End it, or choose another port with {remedy}."
    if error.errno == errno.EACCES:
        return f"Port {port}, which {purpose} needs, is reserved for root. Choose another with {remedy}."
    return f"{purpose[0].upper()}{purpose[1:]} cannot listen on {host}:{port}: {error.strerror or error}."
