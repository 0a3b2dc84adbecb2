"""Signed URLs of files. Anyone who has a URL may read the file until the URL expires."""

import base64
import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from gateway.errors import Forbidden

_KEY_BYTES = 32
_NAME_BYTES = 20
"""160 random bits, 32 characters in base32: too many to guess."""


class Signer:
    """Signs the ids of files with HMAC-SHA256 (RFC 2104), and creates ids."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def signature(self, file: str, expires: int) -> str:
        """Return the signature of `file` until `expires`, in Unix seconds."""
        return _base64url(self._digest("open", file, str(expires)))

    def verify(self, file: str, expires: str, signature: str, now: float) -> int:
        """Return the Unix second until which the signature is valid. Raises `Forbidden` if it is not or no longer."""
        until = int(expires) if expires.isascii() and expires.isdigit() and len(expires) < 16 else 0
        if not hmac.compare_digest(self.signature(file, until).encode(), signature.encode()):
            raise Forbidden("The signature does not match the URL. Use the URL exactly as it was returned.")
        if until < now:
            raise Forbidden("The URL has expired. Request a new one.")
        return until

    def name(self, of: str | None) -> str:
        """Return a name of 32 characters that cannot be guessed: derived from `of`, or random if that is None."""
        name = secrets.token_bytes(_NAME_BYTES) if of is None else self._digest("name", of)[:_NAME_BYTES]
        return base64.b32encode(name).decode().lower()

    def _digest(self, *parts: str) -> bytes:
        return hmac.digest(self._key, "\n".join(parts).encode(), hashlib.sha256)


def diagnose(path: Path) -> str | None:
    """Return the reason why the key in `path` cannot be used, with a remedy; None if it can, or does not exist yet."""
    try:
        _read_key(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"Files cannot be stored: {error}."
    return None


def load_or_create_key(path: Path) -> bytes:
    """Return the key in `path`. Create it with mode 600 if it does not exist. Raises `OSError`."""
    with suppress(FileNotFoundError):
        return _read_key(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written to a temporary file (mode 600) and linked, so that no process reads an incomplete key.
    with NamedTemporaryFile(dir=path.parent, prefix=".key-") as made:
        made.write(_base64url(secrets.token_bytes(_KEY_BYTES)).encode())
        made.flush()
        os.fsync(made.fileno())
        with suppress(FileExistsError):
            os.link(made.name, path)
    return _read_key(path)


def _read_key(path: Path) -> bytes:
    key = path.read_bytes().strip()
    if len(key) < _KEY_BYTES:
        raise OSError(
            f"{path} is not a valid signing key. Remove it to create a new one; existing URLs of files become invalid"
        )
    return key


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
