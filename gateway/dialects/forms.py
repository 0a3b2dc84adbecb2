"""Bodies that are forms: `multipart/form-data`, RFC 7578."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from gateway.errors import InvalidRequest

TYPE = "multipart/form-data"

_MOST_FIELDS = 64
_MOST_FILES = 32
_UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a form. `name` is what its sender calls it, and may be empty."""

    data: bytes
    name: str


class Form(dict[str, Any]):
    """The fields of a form by name: a text or an `Upload`, or a list of those where a name comes several times.

    `image[]`, as PHP and OpenAI's clients name one of several, is `image`.
    """


class _Parser(MultiPartParser):
    spool_max_size = _UNLIMITED
    """Files stay in memory, within the limit that the whole body has."""
    whole = False
    """Whether the boundary that ends the form has come. A part that was cut off is given up in silence."""

    def on_end(self) -> None:
        self.whole = True


async def read(headers: Headers, chunks: AsyncGenerator[bytes]) -> Form:
    """Read a form. Raises `InvalidRequest`, and what `chunks` raises."""
    if "boundary=" not in headers.get("content-type", ""):
        raise InvalidRequest("The header 'Content-Type' of a form names its boundary; this one does not.")
    parser = _Parser(headers, chunks, max_files=_MOST_FILES, max_fields=_MOST_FIELDS, max_part_size=_UNLIMITED)
    try:
        parsed = await parser.parse()
    except (MultiPartException, UnicodeError, LookupError) as error:
        reason = str(getattr(error, "message", error)).rstrip(".")
        raise InvalidRequest(f"The body is not a valid form: {reason}.") from None
    if not parser.whole:
        raise InvalidRequest("The body is not a valid form: it ends before the boundary that closes it.")
    form = Form()
    for key, value in parsed.multi_items():
        name = key.removesuffix("[]")
        item: Upload | str
        if isinstance(value, UploadFile):
            item = Upload(await value.read(), value.filename or "")
            if not item.data and not item.name:
                continue  # a browser's form in which no file was chosen
        else:
            item = _valid(value)
        if name not in form:
            form[name] = [item] if key.endswith("[]") else item
        elif isinstance(form[name], list):
            form[name].append(item)
        else:
            form[name] = [form[name], item]
    return form


def _valid(text: str) -> str:
    """A form may name a charset that leads to lone surrogates, which no text may hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("The body is not a valid form: its text is not valid Unicode.") from None
    return text
