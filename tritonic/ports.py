"""Which ports are free, and who has those that are not."""

import contextlib
import errno
import random
import socket
from pathlib import Path

import psutil

from tritonic.errors import TritonicError


class PortError(TritonicError):
    """A port cannot be listened on; the message says why and what to do."""


def port_hint(option: str, variable: str | None = None) -> str:
    """How to give `up` another port, in the words of a sentence that ends with it."""
    names = f"{option} or {variable}" if variable else option
    return f'{names} (make up ARGS="{option} 0" takes a free one)'


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports that nobody listens on at this moment, all different.

    They lie below those that the system gives to outgoing connections: Triton opens its ports only after it has loaded
    its models, and in those seconds an outgoing connection would take one from under it.
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
    """Who listens on a TCP port, as `process 123 (nginx)`; None where that cannot be seen without more rights."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.pid and tuple(connection.laddr)[1:2] == (port,):
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return None


def bind_socket(host: str, port: int, purpose: str, remedy: str) -> socket.socket:
    """A socket bound to the address, listening to nobody yet.

    `purpose` is who wants the port ("the gateway"), `remedy` how to choose another ("--port").
    Raises PortError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        if port:
            # A port that another socket is bound to, but does not listen on, shows itself only here.
            sock.listen(2048)
    except OSError as error:
        sock.close()
        raise PortError(_sentence(error, host, port, purpose, remedy)) from error
    return sock


def check_free(host: str, port: int, purpose: str, remedy: str) -> None:
    """Raise PortError when the port cannot be listened on at this moment. Port 0 is always free."""
    if port:
        bind_socket(host, port, purpose, remedy).close()


def _sentence(error: OSError, host: str, port: int, purpose: str, remedy: str) -> str:
    if error.errno == errno.EADDRINUSE:
        by = find_listener(port) or "another program (run as root to see which)"
        return f"Port {port}, which {purpose} needs, is in use by {by}. End it, or choose another port with {remedy}."
    if error.errno == errno.EACCES:
        return f"Port {port}, which {purpose} needs, is open to root alone. Choose another with {remedy}."
    return f"{purpose[0].upper()}{purpose[1:]} cannot listen on {host}:{port}: {error.strerror or error}."
