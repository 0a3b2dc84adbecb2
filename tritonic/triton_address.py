"""Where the embedded Triton listens, and who may ask it what."""

import os
import re
import secrets
import tempfile
from pathlib import Path

from gateway.triton.client import SECRET_HEADER

HOST = "127.0.0.1"
RESTRICTED_PROTOCOLS = "model-repository,shared-memory,trace,logging"
"""What only those may ask who know the secret: to load a model is to run code, and the rest writes and reads files."""
PROTOCOL_KEY = SECRET_HEADER.removeprefix("triton-grpc-protocol-")
HTTP_HEADER = "tritonic-secret"

_SAFE_PATH = re.compile(r"[A-Za-z0-9._/-]+")
_MAX_SOCKET_PATH_BYTES = 100
"""Of a socket's path: the system takes 107 bytes, and Triton adds a colon and a number."""


def new_secret() -> str:
    """What nobody guesses."""
    return secrets.token_urlsafe(32)


class SocketFolder:
    """A folder that nobody but this user can enter, for a socket.

    It lies in `folder`, or, where the path would be too long for a socket or has characters that addresses have not, in
    the system's folder for temporary files until this object is gone.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is made yet."""
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
        """The path that Triton is told; it adds a colon and its port."""
        return f"unix:{self._path / 'grpc'}"

    def make(self) -> None:
        """Make the folder anew, without what an earlier run left there. Raises OSError."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.chmod(0o700)
        for old in self._path.glob("grpc:*"):
            old.unlink()


def server_options(address: str, http_port: int | None, grpc_port: int, metrics_port: int, secret: str) -> list[str]:
    """Return the options of tritonserver; `address` is where gRPC listens, the others listen on loopback.

    A `http_port` of None keeps HTTP closed, an empty `secret` restricts nothing.
    """
    options = [
        f"--grpc-address={address}",
        f"--grpc-port={grpc_port}",
        f"--metrics-address={HOST}",
        f"--metrics-port={metrics_port}",
        f"--allow-http={'false' if http_port is None else 'true'}",
        "--allow-sagemaker=false",
        "--allow-vertex-ai=false",  # Triton's default is what the environment says
    ]
    if http_port is not None:
        options += [f"--http-address={HOST}", f"--http-port={http_port}"]
    if secret:
        options.append(f"--grpc-restricted-protocol={RESTRICTED_PROTOCOLS}:{PROTOCOL_KEY}={secret}")
    if secret and http_port is not None:
        options.append(f"--http-restricted-api={RESTRICTED_PROTOCOLS}:{HTTP_HEADER}={secret}")
    return options
