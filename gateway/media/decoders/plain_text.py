"""Decoding of text files, and detection of HTML."""

import re

from gateway.media.invalid_media import InvalidMedia

_BOMS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # ESC is allowed: terminal colours are common in logs
_HTML_START = re.compile(r"<(?:!doctype\s+html|html|head|body)\b", re.I)


def extract_text(data: bytes, *, declared_html: bool, max_characters: int) -> str:
    """Return the text of a text file; HTML becomes Markdown. Raises `InvalidMedia` for other data."""
    found = decode_text(data)
    if not declared_html and not is_html(found):
        return found
    from gateway.media.decoders.html_pages import (
        html_to_markdown,
    )  # the import takes 60 ms; plain text does not need it

    return html_to_markdown(found, max_characters=max_characters)


def decode_text(data: bytes) -> str:
    """Return the text of a text file in any encoding. Raises `InvalidMedia` for other data."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return _require_text(data.decode(encoding))
            except UnicodeDecodeError:
                raise _not_text_error() from None
    try:
        return _require_text(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        pass
    if b"\0" in data:
        raise _not_text_error()
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    if best is None:
        raise _not_text_error()
    return _require_text(str(best))


def is_html(text: str) -> bool:
    """Return whether a text begins like an HTML page."""
    beginning = text[:4096].lstrip()
    if beginning[:5].lower() == "<?xml":
        beginning = beginning.partition(">")[2].lstrip()
    while beginning.startswith("<!--"):
        beginning = beginning.partition("-->")[2].lstrip()
    return _HTML_START.match(beginning) is not None


def _require_text(text: str) -> str:
    """Return `text`, or refuse binary data that happened to decode."""
    if "\0" in text or len(_CONTROL.findall(text)) * 50 > len(text):
        raise _not_text_error()
    return text


def _not_text_error() -> InvalidMedia:
    return InvalidMedia("its format is unknown: expected a PDF, DOCX, PPTX, XLSX, HTML or text file")
