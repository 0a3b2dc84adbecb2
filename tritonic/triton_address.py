"""Addresses and access control of the embedded Triton."""

import os
import re
import secrets
import tempfile
from pathlib import Path

from gateway.triton.client import SECRET_HEADER

HOST = "127.0.0.1"
RESTRICTED_PROTOCOLS = "model-repository,shared-memory,trace,logging"
"""Triton protocols that need the secret: loading a model runs code, and the others read and write files or memory."""
PROTOCOL_KEY = SECRET_HEADER.removeprefix("triton-grpc-protocol-")
HTTP_HEADER = "tritonic-secret"

_SAFE_PATH = re.compile(r"[A-Za-z0-9._/-]+")
_MAX_SOCKET_PATH_BYTES = 100
"""Longest path of the socket. Linux allows 107 bytes, and Triton adds a colon and a port."""


def new_secret() -> str:
    """Return a random secret of 256 bits, URL-safe."""
    return secrets.token_urlsafe(32)


class SocketFolder:
    """A folder for a Unix socket that only this user can enter.

    It lies in `folder`. If that path is too long for a socket or has characters that a gRPC address cannot have, it
    is a temporary folder instead, which is removed with this object.
    """

    def __init__(self, folder: Path) -> None:
        """Choose the path; `make()` creates the folder."""
        self._path = folder / "socket"
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if (
            not _SAFE_PATH.fullmatch(str(self._path))
            or len(os.fsencode(self._path)) + len("/grpc") > _MAX_SOCKET_PATH_BYTES
        ):
            self._temporary = tempfile.TemporaryDirectory(prefix="tritonic-")
            self._path = Path(self._temporary.name)

    @property
    def socket(self) -> str:
        """The address for Triton, `unix:` and a path; Triton adds a colon and its port."""
        return f"unix:{self._path / 'grpc'}"

    def make(self) -> None:
        """Create the folder, and remove the sockets of earlier runs. Raises OSError."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.chmod(0o700)
        for old in self._path.glob("grpc:*"):
            old.unlink()


def server_options(address: str, http_port: int | None, grpc_port: int, metrics_port: int, secret: str) -> list[str]:
    """Return the network options of tritonserver. gRPC listens on `address`, HTTP and metrics on loopback.

    An `http_port` of None keeps HTTP closed. Calls that load models, or that reach shared
    memory, tracing or logging, need `secret` (`RESTRICTED_PROTOCOLS`); with an empty one nothing is restricted.
    """
    options = [
        f"--grpc-address={address}",
        f"--grpc-port={grpc_port}",
        f"--metrics-address={HOST}",
        f"--metrics-port={metrics_port}",
        f"--allow-http={'false' if http_port is None else 'true'}",
        "--allow-sagemaker=false",
        "--allow-vertex-ai=false",  # its default comes from the environment
    ]
    if http_port is not None:
        options += [f"--http-address={HOST}", f"--http-port={http_port}"]
    if secret:
        options.append(f"--grpc-restricted-protocol={RESTRICTED_PROTOCOLS}:{PROTOCOL_KEY}={secret}")
    if secret and http_port is not None:
        options.append(f"--http-restricted-api={RESTRICTED_PROTOCOLS}:{HTTP_HEADER}={secret}")
    return options
