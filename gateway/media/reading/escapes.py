"""Long texts in which many characters are escapes of URLs: they take a second or two to read."""

from gateway.media import inline


def unquoted(data: bytes, *, base64: bool) -> bytes:
    """Return what the text stands for. Raises `Unusable`."""
    data = inline.unescaped(data)
    return b"".join(inline.decoded(inline.Text(data.decode("latin-1"), 0, base64=True))) if base64 else data
