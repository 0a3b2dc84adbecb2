"""Forms with large files, parsed while they arrive: the files go to disk (`gateway.media.spool`), not into memory."""

import asyncio
import re
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from gateway.errors import RequestTimeout, RequestTooLarge
from gateway.fair_sharing import MemoryReservation
from gateway.http import forms
from gateway.http.bodies import Body, LimitedRequest, Validate
from gateway.http.forms import Form
from gateway.http.json_limits import JSONLimits
from gateway.media.spool import SpoolFile

_MAX_FIELD_BYTES = 1024 * 1024
"""Most bytes of all fields that are no files."""
_MAX_LINE_BYTES = 512
"""Most bytes before the end of the first boundary."""


@dataclass(frozen=True, slots=True)
class SpooledUpload:
    """A file of a form. `name` is the file name that the client gave, and may be empty."""

    file: SpoolFile
    name: str


class FormReader:
    """Parses a form piece by piece, by the rules of `gateway.http.forms`."""

    def __init__(self, content_type: str, new_spool: Callable[[], SpoolFile]) -> None:
        """`content_type` is the header of the request. Raises `InvalidRequest`."""
        line = b"--" + forms.read_boundary(content_type)
        self._line = line
        self._delimiter = re.compile(rb"\r\n" + re.escape(line) + forms.END_OF_LINE.pattern)
        self._tail = len(line) + 2 + _MAX_LINE_BYTES
        self._new_spool = new_spool
        self._form = Form()
        self._buffer = bytearray()
        self._step: Callable[[], bool] = self._begin
        self._name = ""
        self._text: bytearray | None = None
        self._file: SpooledUpload | None = None
        self._files = self._fields = self._field_bytes = 0
        self._output: bytes = b""
        self._skip = 0
        """Bytes at the start of the buffer that are no content."""
        self._ended = False

    async def feed(self, data: bytes) -> None:
        """Parse the next piece. Raises `InvalidRequest`, and what the files raise."""
        if self._ended:
            return
        self._buffer += data
        advances = True
        while advances and not self._ended:
            advances = self._step()
            if self._output and self._file:
                output, self._output = self._output, b""
                await self._file.file.write(output)

    async def finish(self) -> Form:
        """Return the form. Raises `InvalidRequest` if it is truncated."""
        if self._step == self._begin and self._buffer:
            start = forms.find_first_boundary(self._buffer, self._line)
            self._ended = start[1] == b"--"  # an empty form
        if not self._ended:
            raise forms.cut_off_error()
        for value in self._form.values():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, SpooledUpload):
                    await item.file.finish()
        return self._form

    def _begin(self) -> bool:
        """Read the first boundary. Each step returns whether the next one may follow at once."""
        if b"\n" not in self._buffer.lstrip(b"\r\n") and len(self._buffer) < _MAX_LINE_BYTES:
            return False
        start = forms.find_first_boundary(self._buffer, self._line)
        self._end_delimiter(start.end(), is_last=start[1] == b"--")
        return True

    def _read_headers(self) -> bool:
        # The buffer begins with the line break before the headers.
        if self._buffer.find(b"\r\n\r\n") < 0 and len(self._buffer) < forms.MAX_HEADER_BYTES + 4:
            return False
        name, filename, at = forms.parse_part_headers(self._buffer, 2, len(self._buffer))
        # The line break before the content may be that of a boundary, which then has no content.
        del self._buffer[: at - 2]
        self._skip = 2
        self._name = name
        if filename is None:
            self._fields += 1
            self._text = bytearray()
        else:
            self._files += 1
            self._file = SpooledUpload(self._new_spool(), filename)
        forms.check_counts(self._files, self._fields)
        self._step = self._read_content
        return True

    def _read_content(self) -> bool:
        found = self._delimiter.search(self._buffer)
        end = found.start() if found else len(self._buffer) - self._tail
        if found and end < self._skip:
            raise forms.cut_off_error()
        if end < self._skip:
            return False
        start, self._skip = self._skip, 0
        if self._text is not None:
            self._field_bytes += end - start
            if self._field_bytes > _MAX_FIELD_BYTES:
                raise RequestTooLarge(f"The fields of the form are larger than the limit of {_MAX_FIELD_BYTES} bytes.")
            self._text += self._buffer[start:end]
        else:
            self._output = bytes(memoryview(self._buffer)[start:end])
        if not found:
            del self._buffer[:end]
            return False
        if self._text is not None:
            self._add(forms.decode_text(self._text, 0, len(self._text), self._name))
        self._step = self._end_file if self._text is None else self._next_part
        self._found = found.end(), found[1] == b"--"
        return True

    def _end_file(self) -> bool:
        """Add the file, whose bytes have been written."""
        assert self._file is not None
        if self._file.file.size or self._file.name:  # else a browser's form in which no file was chosen
            self._add(self._file)
        return self._next_part()

    def _next_part(self) -> bool:
        self._text = self._file = None
        at, is_last = self._found
        self._end_delimiter(at, is_last=is_last)
        return True

    def _end_delimiter(self, at: int, *, is_last: bool) -> None:
        self._ended = is_last
        self._buffer[:at] = b"\r\n"
        self._step = self._read_headers

    def _add(self, item: str | SpooledUpload) -> None:
        forms.add_item(self._form, self._name, item)


class SpooledFormRequest(LimitedRequest[Body]):
    """A request whose body is a form with large files, which become `SpooledUpload`s."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        received_headers: Headers,
        new_spool: Callable[[], SpoolFile],
        max_bytes: int,
    ) -> None:
        """`new_spool` returns an empty file, which its owner closes. `max_bytes` is the size of the largest file."""
        super().__init__(scope, receive, received_headers)
        self._new_spool = new_spool
        self._max_bytes = max_bytes

    async def read(
        self,
        limit: int,
        seconds: float,
        json_limits: JSONLimits,
        validate: Validate[Body],
        reservation: MemoryReservation,
    ) -> None:
        """Read the form and validate it. Its files do not count as part of the `limit` and the `reservation`.

        A body may take `seconds` for each `limit` bytes. Raises as `LimitedRequest.read` does, and `StorageFull`.
        """
        reader = FormReader(self._received_headers.get("content-type", ""), self._new_spool)
        too_large = RequestTooLarge(f"The body is larger than the limit of {self._max_bytes} bytes.")
        most = self._max_bytes + limit
        length = self._received_headers.get("content-length", "")
        if length.isdigit() and int(length) > most:
            raise too_large
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(seconds) as timeout, aclosing(self.stream()) as chunks:
                async for chunk in chunks:
                    self.body_bytes += len(chunk)
                    if self.body_bytes > most:
                        raise too_large
                    await reader.feed(chunk)
                    timeout.reschedule(began + seconds * (1 + self.body_bytes / limit))
        except TimeoutError:
            message = f"The body did not arrive within {seconds:g} seconds for each {limit} bytes."
            raise RequestTimeout(message) from None
        form = await reader.finish()
        self._json = validate(form)
        self._body = b"{}"  # FastAPI reads the parsed body only if the raw body is not empty

    def _parse(self, body: bytearray, json_limits: JSONLimits, validate: Validate[Body]) -> Body:
        raise NotImplementedError
