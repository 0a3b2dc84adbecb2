"""Bodies that are forms: `multipart/form-data`, RFC 7578, in UTF-8 alone.

Everything is looked for by C code that reads each byte once, and whatever a form or a part of it says of charsets is
compared with a few words: Python knows codecs that take minutes for a megabyte, and some that run what they read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.errors import InvalidRequest

MULTIPART_TYPE = "multipart/form-data"

_MAX_FIELDS = 64
_MAX_FILES = 32
_MAX_HEADERS = 16
_MAX_HEADER_BYTES = 8192
"""Bytes of all headers of one part."""
_MAX_CONTENT_TYPE_LENGTH = 1024
_SEARCH_BYTES = 1024 * 1024
"""Bytes that are searched before other threads have their turn."""
_MAX_DELIMITER_BYTES = 512
_MAX_LEADING_BYTES = 128
"""Bytes of line breaks before the first boundary."""

# Parts of these types are files also where nobody has given them a name.
_FILE_TYPES = ("image/", "application/octet-stream")
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,199}[0-9A-Za-z'()+_,./:=?-]")
# A parameter of a header: its name, and its value with quotes or without.
_PARAMETER = re.compile(r';[ \t]*+([^\s=;"]++)[ \t]*+=[ \t]*+(?:"((?:[^"\\]|\\.)*+)"|([^;"]*+))')
_END_OF_LINE = re.compile(rb"(--|[ \t]{0,64}+\r\n)")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a form. `name` is what its sender calls it, and may be empty."""

    data: bytes
    name: str


class Form(dict[str, Any]):
    """The fields of a form by name: a text or an `Upload`, or a list of those where a name comes several times.

    `image[]`, as PHP and OpenAI's clients name one of several, is `image`.
    """


def parse(content_type: str, body: bytes | bytearray) -> Form:
    """Read a form with this header `Content-Type`. Raises `InvalidRequest`."""
    if len(content_type) > _MAX_CONTENT_TYPE_LENGTH:
        raise _invalid("its header 'Content-Type' is too long")
    parameters = _parameters(content_type)
    boundary = parameters.get("boundary", "")
    if not boundary:
        raise InvalidRequest("The header 'Content-Type' of a form names its boundary; this one does not.")
    if not _BOUNDARY.fullmatch(boundary):
        raise _invalid("its boundary is longer than 200 characters, or has some that none may have")
    _must_be_utf8(parameters.get("charset"))
    form = Form()
    files = fields = 0
    for start, end in _parts(body, boundary.encode()):
        name, filename, at = _parse_part_headers(body, start, end)
        item: Upload | str
        if filename is None:
            fields += 1
            item = _text(body, at, end, name)
            if name == "_charset_":
                _must_be_utf8(item)
        else:
            files += 1
            with memoryview(body) as view:
                item = Upload(bytes(view[at:end]), filename)
            if not item.data and not item.name:
                continue  # a browser's form in which no file was chosen
        if files > _MAX_FILES or fields > _MAX_FIELDS:
            raise _invalid(f"it may have {_MAX_FIELDS} fields and {_MAX_FILES} files, and has more")
        key = name.removesuffix("[]")
        if key not in form:
            form[key] = [item] if name.endswith("[]") else item
        elif isinstance(form[key], list):
            form[key].append(item)
        else:
            form[key] = [form[key], item]
    return form


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The body is not a valid form: {reason}.")


def _must_be_utf8(charset: str | None) -> None:
    if charset is not None and charset.strip().lower() not in _CHARSETS:
        raise InvalidRequest(f"Forms are read in UTF-8 alone, not in '{charset.strip()[:64]}'.")


def _parameters(header: str) -> dict[str, str]:
    """The parameters of a header, of which the first of a name counts.

    Extended ones, `filename*=UTF-8''…`, are none here: RFC 7578 forbids them.
    """
    found: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(header):
        value = re.sub(r"\\([\\\"])", r"\1", quoted) if quoted else plain.strip()
        found.setdefault(name.lower(), value)
    return found


def _parts(body: bytes | bytearray, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Where each part begins and ends, its headers included.

    Lines that only begin as the boundary does are none: a part may hold them.
    """
    line = b"--" + boundary
    at = 0
    while at < _MAX_LEADING_BYTES and body.startswith(b"\r\n", at):
        at += 2
    opening = _END_OF_LINE.match(body, at + len(line)) if body.startswith(line, at) else None
    if not opening:
        begun = bytes(body[at : at + len(line) + 2])
        raise _cut_off() if (line + b"\r\n").startswith(begun) else _invalid("it does not begin with its boundary")
    start, last = opening.end(), opening[1] == b"--"
    # The line break before a boundary belongs to it, and so does that which ends the line before.
    delimiter = re.compile(rb"\r\n" + re.escape(line) + _END_OF_LINE.pattern)
    at = start - 2
    while not last:
        found = delimiter.search(body, at, at + _SEARCH_BYTES + _MAX_DELIMITER_BYTES)
        if found:
            if found.start() < start:
                raise _invalid("one of its parts has no headers")
            yield start, found.start()
            start, last = found.end(), found[1] == b"--"
            at = start - 2
        elif at + _SEARCH_BYTES >= len(body):
            raise _cut_off()
        else:
            at += _SEARCH_BYTES


def _cut_off() -> InvalidRequest:
    """What was lost may be the picture that was to be edited."""
    return _invalid("it ends before the boundary that closes it")


def _parse_part_headers(body: bytes | bytearray, start: int, end: int) -> tuple[str, str | None, int]:
    """The name of a part, what its file is called where it has one, and where its content begins."""
    stop = body.find(b"\r\n\r\n", max(start - 2, 0), min(end, start + _MAX_HEADER_BYTES))
    if stop < 0:
        raise _invalid(f"the headers of a part have no end, or more than {_MAX_HEADER_BYTES} bytes")
    disposition, filed_as = "", None
    lines = bytes(body[start:stop]).split(b"\r\n") if stop > start else []
    if len(lines) > _MAX_HEADERS:
        raise _invalid(f"a part has more than {_MAX_HEADERS} headers")
    for line in lines:
        header = _HEADER.fullmatch(line)
        if not header:
            raise _invalid("a header of a part is none")
        match header[1].lower():
            case b"content-disposition":
                disposition = header[2].decode("utf-8", "replace")
            case b"content-type":
                filed_as = header[2].decode("latin-1")
    parameters = _parameters(disposition)
    name = parameters.get("name")
    if name is None:
        raise _invalid("the header 'Content-Disposition' of a part must give its name")
    if "\ufffd" in name:
        raise _invalid("the name of a part is not UTF-8")
    filename = parameters.get("filename")
    if filename is None and filed_as and filed_as.lower().startswith(_FILE_TYPES):
        filename = ""
    if filename is None and filed_as:
        _must_be_utf8(_parameters(filed_as).get("charset"))  # nobody reads the text of a file here
    return name, filename, stop + 4


def _text(body: bytes | bytearray, start: int, end: int, name: str) -> str:
    try:
        with memoryview(body) as view:
            return str(view[start:end], "utf-8")
    except UnicodeDecodeError:
        raise _invalid(f"the text of its field '{name[:64]}' is not UTF-8") from None
