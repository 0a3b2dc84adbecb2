"""Bytes that travel in the request itself: data URLs (RFC 2397) and base64."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from gateway.media.unusable import Unusable

_NO_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


def from_data_url(url: str, *, limit: int) -> tuple[bytes, str]:
    """Return the bytes of a data URL and the media type it declares (`text/plain` if none). Raises `Unusable`."""
    head, comma, payload = url.partition(",")
    if not comma:
        raise Unusable("a data URL reads 'data:<media type>;base64,<data>'; the comma is missing")
    media_type, *parameters = head[len("data:") :].split(";")
    if any(parameter.strip().lower() == "base64" for parameter in parameters):
        data = from_base64(payload, limit=limit)
    else:
        data = unquote_to_bytes(payload)
        if len(data) > limit:
            raise too_large(limit)
    return data, media_type.strip().lower() or "text/plain"


def from_base64(text: str, *, limit: int) -> bytes:
    """Return what base64 stands for, in either alphabet, with or without padding and line breaks. Raises `Unusable`."""
    if len(text) // 4 * 3 > limit + limit // 32:  # before anything is copied; lines and padding add a little
        raise too_large(limit)
    text = "".join(text.split())
    if "%" in text and not _NO_ESCAPE.search(text):
        # Escapes of URLs are quoted-printable under another sign, of which the standard library has a reader in C: its
        # reader of URLs would keep all other threads waiting for seconds.
        quoted = text.rstrip("=").replace("%", "=").encode("ascii", "replace")
        text = "".join(binascii.a2b_qp(quoted).decode("latin-1").split())
    text = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Unusable("its data is not valid base64") from None
    if len(data) > limit:
        raise too_large(limit)
    return data


def too_large(limit: int) -> Unusable:
    """What to raise about more than `limit` bytes."""
    return Unusable(f"it is larger than this service takes, {limit} bytes")
