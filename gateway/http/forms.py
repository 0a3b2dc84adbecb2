"""Parsing of forms, `multipart/form-data` (RFC 7578), in UTF-8 only.

C code does all searches, and reads each byte once. Charsets are compared with a list of allowed names and never looked
up: some of Python's codecs take minutes for a megabyte, and some execute their input.
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
MAX_HEADER_BYTES = 8192
"""Most bytes of all headers of one part."""
_MAX_CONTENT_TYPE_LENGTH = 1024
_SEARCH_BYTES = 1024 * 1024
"""Bytes that are searched in one call. Other threads can run between two calls."""
_MAX_DELIMITER_BYTES = 512
_MAX_LEADING_BYTES = 128
"""Most bytes of line breaks before the first boundary."""

# Parts of these types are files even without a file name.
_FILE_TYPES = ("image/", "application/octet-stream")
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,199}[0-9A-Za-z'()+_,./:=?-]")
# A parameter of a header: its name, and its value, quoted or not.
_PARAMETER = re.compile(r';[ \t]*+([^\s=;"]++)[ \t]*+=[ \t]*+(?:"((?:[^"\\]|\\.)*+)"|([^;"]*+))')
END_OF_LINE = re.compile(rb"(--|[ \t]{0,64}+\r\n)")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a form. `name` is the file name that the client gave, and may be empty."""

    data: bytes
    name: str


class Form(dict[str, Any]):
    """The fields of a form by name: a text or an `Upload`, or a list of those for a name that occurs several times.

    `image[]`, the name that PHP and OpenAI's clients use for one of several, becomes `image`.
    """


def parse(content_type: str, body: bytes | bytearray) -> Form:
    """Parse a form. `content_type` is the header of the request. Raises `InvalidRequest`."""
    boundary = read_boundary(content_type)
    form = Form()
    files = fields = 0
    for start, end in _parts(body, boundary):
        name, filename, at = parse_part_headers(body, start, end)
        item: Upload | str
        if filename is None:
            fields += 1
            item = decode_text(body, at, end, name)
        else:
            files += 1
            with memoryview(body) as view:
                item = Upload(bytes(view[at:end]), filename)
            if not item.data and not item.name:
                continue  # a browser's form in which no file was chosen
        check_counts(files, fields)
        add_item(form, name, item)
    return form


def read_boundary(content_type: str) -> bytes:
    """Return the boundary that the header `Content-Type` names. Raises `InvalidRequest`."""
    if len(content_type) > _MAX_CONTENT_TYPE_LENGTH:
        raise _invalid("its header 'Content-Type' is too long")
    parameters = _parameters(content_type)
    boundary = parameters.get("boundary", "")
    if not boundary:
        raise InvalidRequest("The header 'Content-Type' of a form must have the parameter 'boundary'.")
    if not _BOUNDARY.fullmatch(boundary):
        raise _invalid("its boundary is longer than 200 characters, or has characters that are not allowed")
    _require_utf8(parameters.get("charset"))
    return boundary.encode()


def check_counts(files: int, fields: int) -> None:
    """Raise `InvalidRequest` for a form with too many files or fields."""
    if files > _MAX_FILES or fields > _MAX_FIELDS:
        raise _invalid(f"it exceeds the limit of {_MAX_FIELDS} fields and {_MAX_FILES} files")


def add_item(form: Form, name: str, item: object) -> None:
    """Add a field or a file to a form."""
    key = name.removesuffix("[]")
    if key not in form:
        form[key] = [item] if name.endswith("[]") else item
    elif isinstance(form[key], list):
        form[key].append(item)
    else:
        form[key] = [form[key], item]


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The body is not a valid form: {reason}.")


def _require_utf8(charset: str | None) -> None:
    if charset is not None and charset.strip().lower() not in _CHARSETS:
        raise InvalidRequest(f"The charset of a form must be UTF-8, not '{charset.strip()[:64]}'.")


def _parameters(header: str) -> dict[str, str]:
    """Return the parameters of a header. The first one of a name counts.

    Extended parameters, `filename*=UTF-8''…`, are ignored: RFC 7578 forbids them.
    """
    found: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(header):
        value = re.sub(r"\\([\\\"])", r"\1", quoted) if quoted else plain.strip()
        found.setdefault(name.lower(), value)
    return found


def _parts(body: bytes | bytearray, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Yield the start and end offset of each part, headers included. Raises `InvalidRequest`.

    A line that only starts with the boundary does not end a part.
    """
    line = b"--" + boundary
    opening = find_first_boundary(body, line)
    start, last = opening.end(), opening[1] == b"--"
    # The line break before a boundary belongs to the boundary, also where it ends the previous boundary.
    delimiter = re.compile(rb"\r\n" + re.escape(line) + END_OF_LINE.pattern)
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
            raise cut_off_error()
        else:
            at += _SEARCH_BYTES


def find_first_boundary(body: bytes | bytearray, line: bytes) -> "re.Match[bytes]":
    """Return the end of the first boundary's line, which may follow a few line breaks. Raises `InvalidRequest`."""
    at = 0
    while at < _MAX_LEADING_BYTES and body.startswith(b"\r\n", at):
        at += 2
    opening = END_OF_LINE.match(body, at + len(line)) if body.startswith(line, at) else None
    if not opening:
        begun = bytes(body[at : at + len(line) + 2])
        if (line + b"\r\n").startswith(begun):
            raise cut_off_error()
        raise _invalid("it does not begin with its boundary")
    return opening


def cut_off_error() -> InvalidRequest:
    """Return the error for a truncated form. It is refused, as the lost part may be the image to edit."""
    return _invalid("it ends before its closing boundary")


def parse_part_headers(body: bytes | bytearray, start: int, end: int) -> tuple[str, str | None, int]:
    """Return the name of a part, its file name (None if it is no file), and the offset of its content."""
    stop = body.find(b"\r\n\r\n", max(start - 2, 0), min(end, start + MAX_HEADER_BYTES))
    if stop < 0:
        raise _invalid(f"the headers of a part do not end within {MAX_HEADER_BYTES} bytes")
    disposition, part_type = "", None
    lines = bytes(body[start:stop]).split(b"\r\n") if stop > start else []
    if len(lines) > _MAX_HEADERS:
        raise _invalid(f"a part has more than {_MAX_HEADERS} headers")
    for line in lines:
        header = _HEADER.fullmatch(line)
        if not header:
            raise _invalid("a header of a part is malformed")
        match header[1].lower():
            case b"content-disposition":
                disposition = header[2].decode("utf-8", "replace")
            case b"content-type":
                part_type = header[2].decode("latin-1")
    parameters = _parameters(disposition)
    name = parameters.get("name")
    if name is None:
        raise _invalid("the header 'Content-Disposition' of a part must give its name")
    if "\ufffd" in name:
        raise _invalid("the name of a part is not UTF-8")
    filename = parameters.get("filename")
    if filename is None and part_type and part_type.lower().startswith(_FILE_TYPES):
        filename = ""
    if filename is None and part_type:
        _require_utf8(_parameters(part_type).get("charset"))  # files are not decoded here
    return name, filename, stop + 4


def decode_text(body: bytes | bytearray, start: int, end: int, name: str) -> str:
    """Return the text of the field `name`. Raises `InvalidRequest` if it is not UTF-8, or names another charset."""
    try:
        with memoryview(body) as view:
            text = str(view[start:end], "utf-8")
    except UnicodeDecodeError:
        raise _invalid(f"the text of its field '{name[:64]}' is not UTF-8") from None
    if name == "_charset_":
        _require_utf8(text)
    return text
