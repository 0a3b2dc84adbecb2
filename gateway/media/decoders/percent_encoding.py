"""Long texts in which many characters are escapes of URLs: they take a second or two to read."""

from gateway.media import inline_data


def decode_percent_encoding(data: bytes, *, base64: bool) -> bytes:
    """Return what the text stands for. Raises `Unusable`."""
    data = inline_data.percent_decode(data)
    return (
        b"".join(inline_data.iter_base64(inline_data.EncodedText(data.decode("latin-1"), 0, base64=True)))
        if base64
        else data
    )
