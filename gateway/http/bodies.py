"""Reading of request bodies within limits of bytes, time and JSON values, which are checked before parsing."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Receive, Scope

from gateway.errors import InvalidRequest, RequestTimeout, RequestTooLarge
from gateway.fair_sharing import MemoryReservation
from gateway.http import forms
from gateway.http.gzip_bodies import GzipDecoder, is_gzipped
from gateway.http.json_limits import JSONLimits, check_json, count_delimiters
from gateway.http.offload import LARGE_BYTES, offload

Body = TypeVar("Body")
Validate = Callable[[dict[str, Any]], Body]

_MAX_INLINE_VALUES = 2000
"""Bodies with at most this many JSON values, and at most `LARGE_BYTES`, are parsed on the event loop."""
_UTF16_OR_32_STARTS = (b"\xff\xfe", b"\xfe\xff", b"\0")
"""First bytes of JSON in UTF-16 and UTF-32: a byte-order mark, or the zero byte of a bracket."""


class LimitedRequest(Request, Generic[Body]):
    """A request whose body is read within limits, whatever its content type is. FastAPI gets the parsed body.

    `body_bytes` is the size of the body after decompression. `is_large` says whether work on it belongs in a thread
    (`gateway.http.offload`). The bytes are freed once they are parsed.
    """

    def __init__(self, scope: Scope, receive: Receive, received_headers: Headers) -> None:
        """`received_headers` are the headers as they were received."""
        super().__init__(scope, receive)
        self._received_headers = received_headers
        self.body_bytes = 0
        self.is_large = False

    async def read(
        self,
        limit: int,
        seconds: float,
        json_limits: JSONLimits,
        validate: Validate[Body],
        reservation: MemoryReservation,
    ) -> None:
        """Read the body, parse it, and validate it with `validate`; a large body is parsed in a thread.

        `limit` is the most bytes of the body after decompression, `seconds` the timeout until its last byte.
        `reservation` counts its bytes, also after this call.

        Raises `RequestTooLarge`, `RequestTimeout`, `InvalidRequest`, `UnsupportedEncoding`, `Overloaded`, and what
        `validate` raises.
        """
        is_compressed = is_gzipped(self._received_headers)
        try:
            async with asyncio.timeout(seconds):
                body = await self._read_body(limit, reservation)
        except TimeoutError:
            raise RequestTimeout(f"The body did not arrive within {seconds:g} seconds.") from None
        gzip = GzipDecoder(body, limit) if is_compressed else None
        is_complete = gzip is None or gzip.decompress(LARGE_BYTES)
        if gzip:
            body = gzip.body
            reservation.acquire(len(body))

        def work() -> Body:
            # Decompression and parsing are one job, so that a caller has one growing body at a time.
            if gzip and not is_complete:
                gzip.decompress()
            self.body_bytes = len(body)
            return self._parse(body, json_limits, validate)

        has_many_values = len(body) > 2 * _MAX_INLINE_VALUES and count_delimiters(body) > _MAX_INLINE_VALUES
        self.is_large = not is_complete or len(body) > LARGE_BYTES or has_many_values
        self._json = await offload(reservation.caller, work) if self.is_large else work()
        self._body = b"{}"  # FastAPI reads the parsed body only if the raw body is not empty
        if gzip:
            reservation.release()
            reservation.acquire(self.body_bytes)

    def _parse(self, body: bytearray, json_limits: JSONLimits, validate: Validate[Body]) -> Body:
        raise NotImplementedError

    async def _read_body(self, limit: int, reservation: MemoryReservation) -> bytearray:
        too_large = RequestTooLarge(f"The body is larger than the limit of {limit} bytes.")
        length = self._received_headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise too_large
        # One buffer: the chunks of a body that arrives byte by byte would be a million objects.
        body = bytearray()
        try:
            async with aclosing(self.stream()) as chunks:
                async for chunk in chunks:
                    if len(body) + len(chunk) > limit:
                        raise too_large
                    reservation.acquire(len(chunk))
                    body += chunk
        except BaseException:
            body.clear()  # an error that is stored keeps this frame, and so the body, in memory
            raise
        return body


class JSONRequest(LimitedRequest[Body]):
    """A request whose body is JSON, parsed strictly."""

    def _parse(self, body: bytearray, json_limits: JSONLimits, validate: Validate[Body]) -> Body:
        if body.startswith(b"\xef\xbb\xbf"):
            del body[:3]  # a byte-order mark, which a reader may skip (RFC 8259, section 8.1)
        elif body.startswith(_UTF16_OR_32_STARTS) or body[1:2] == b"\0":
            raise InvalidRequest("The body must be JSON in UTF-8, not in UTF-16 or UTF-32.")
        check_json(body, json_limits)
        try:
            # This parser refuses lone surrogates, invalid UTF-8 and too deep nesting; Python's does not. It accepts
            # NaN, which the validation of the field reports better.
            parsed = from_json(body, allow_inf_nan=True)
        except ValueError as error:
            hint = " (text must be valid Unicode, without lone surrogates)" if "hex escape" in str(error) else ""
            raise InvalidRequest(f"The body is not valid JSON: {error}{hint}.") from None
        if not isinstance(parsed, dict):
            raise InvalidRequest("The body must be a JSON object.")
        body.clear()
        return validate(parsed)


class FormRequest(LimitedRequest[Body]):
    """A request whose body is a form. Files become `Upload`s, other fields text."""

    def _parse(self, body: bytearray, json_limits: JSONLimits, validate: Validate[Body]) -> Body:
        form = forms.parse(self._received_headers.get("content-type", ""), body)
        body.clear()
        return validate(form)
