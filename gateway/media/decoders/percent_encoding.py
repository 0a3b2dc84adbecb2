"""Decoding of long texts with many percent escapes. It takes up to two seconds, so it runs in a child process."""

from gateway.media import inline_data


def decode_percent_encoding(data: bytes, *, base64: bool) -> bytes:
    """Return percent-encoded `data` decoded, and then decoded from base64 if `base64`. Raises `InvalidMedia`."""
    data = inline_data.percent_decode(data)
    return (
        b"".join(inline_data.iter_base64(inline_data.EncodedText(data.decode("latin-1"), 0, base64=True)))
        if base64
        else data
    )
