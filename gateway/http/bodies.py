"""How bodies are read, and what they may cost: bytes, time, and values, before anything is made of them."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Receive, Scope

from gateway.errors import InvalidRequest, RequestTimeout, RequestTooLarge
from gateway.http import forms
from gateway.http.apart import LARGE, apart
from gateway.http.counting import Bounds, check, marks
from gateway.http.packed import Gunzip, is_packed
from gateway.places import Holding

Body = TypeVar("Body")
Understand = Callable[[dict[str, Any]], Body]

_FEW_VALUES = 2000
"""Up to these, and where it is not `LARGE`, a body is worked on by the loop itself."""
_UNPACKED = 64 * 1024
"""Bytes that are unpacked at a time by the loop, in a fifth of a millisecond; in a thread many more, for which so many
that are packed are waited for: each time that a thread is asked takes as long."""
_UNPACKED_APART = 1024 * 1024
_PACKED_APART = 256 * 1024
_OTHER_UNICODE = (b"\xff\xfe", b"\xfe\xff", b"\0")
"""How JSON begins in UTF-16 and UTF-32: with a mark, or with half of a bracket."""


class LimitedRequest(Request, Generic[Body]):
    """A request whose body is read within limits, whatever its content type says. FastAPI takes what it `holds`.

    `size` is that of the body in bytes, unpacked where it was packed, `large` whether work on it belongs beside the
    loop (`gateway.http.apart`). The bytes are given up once they are understood.
    """

    def __init__(self, scope: Scope, receive: Receive, given: Headers) -> None:
        """`given` are the headers as they came."""
        super().__init__(scope, receive)
        self._given = given
        self.size = 0
        self.large = False

    async def read(
        self, limit: int, seconds: float, bounds: Bounds, understand: Understand[Body], holding: Holding
    ) -> None:
        """Read the body, parse it, and let `understand` check it, which is called in a thread where it is large.

        The request is `holding` its bytes from now on.

        Raises `RequestTooLarge`, `RequestTimeout`, `InvalidRequest`, `UnsupportedEncoding`, `Overloaded`, and what
        `understand` raises.
        """
        packed = Gunzip() if is_packed(self._given) else None
        try:
            async with asyncio.timeout(seconds):
                body = await self._within(limit, holding, packed)
        except TimeoutError:
            raise RequestTimeout(f"The body did not arrive within {seconds:g} seconds.") from None
        self.large = self.size > LARGE or (self.size > 2 * _FEW_VALUES and marks(body) > _FEW_VALUES)
        self._json = (
            await apart(holding.caller, lambda: self._understood(body, bounds, understand))
            if self.large
            else self._understood(body, bounds, understand)
        )
        self._body = b"{}"  # FastAPI asks for what was parsed only where there is a body

    def _understood(self, body: bytearray, bounds: Bounds, understand: Understand[Body]) -> Body:
        raise NotImplementedError

    async def _within(self, limit: int, holding: Holding, packed: Gunzip | None) -> bytearray:
        too_large = RequestTooLarge(f"The body is larger than this service takes, {limit} bytes.")
        length = self._given.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise too_large
        # What comes in pieces of a byte must not be kept in a million objects.
        body = bytearray()

        def add(piece: bytes) -> None:
            nonlocal body
            if self.size + len(piece) > limit:
                raise too_large
            holding.take(len(piece))
            self.size += len(piece)
            body += piece

        came = 0
        try:
            async with aclosing(self.stream()) as chunks:
                async for chunk in chunks:
                    came += len(chunk)
                    if came > limit:
                        raise too_large
                    if packed is None:
                        add(chunk)
                    else:
                        packed.feed(chunk)
                        if self.size <= LARGE or packed.waiting >= _PACKED_APART:
                            await self._unpack(packed, add, holding.caller)
            if packed is not None:
                await self._unpack(packed, add, holding.caller)
                packed.check_end()
        except BaseException:
            body.clear()  # whoever keeps the error keeps this frame
            raise
        return body

    async def _unpack(self, packed: Gunzip, add: Callable[[bytes], None], caller: str) -> None:
        """Unpack what was fed: here, and in a thread what is more than a little."""
        while packed.waiting:
            if self.size <= LARGE:
                add(packed.unpack(_UNPACKED))
            else:
                add(await apart(caller, lambda: packed.unpack(_UNPACKED_APART)))


class JSONRequest(LimitedRequest[Body]):
    """A request whose body is JSON, parsed strictly."""

    def _understood(self, body: bytearray, bounds: Bounds, understand: Understand[Body]) -> Body:
        if body.startswith(b"\xef\xbb\xbf"):
            del body[:3]  # a byte-order mark, which some programs write and a reader may skip (RFC 8259, section 8.1)
        elif body.startswith(_OTHER_UNICODE) or body[1:2] == b"\0":
            raise InvalidRequest("The body must be JSON in UTF-8; this one seems to be UTF-16 or UTF-32.")
        check(body, bounds)
        try:
            # Refuses lone surrogates, invalid UTF-8 and bottomless nesting, which Python's parser lets pass. NaN is
            # let through here, because the field that holds it can say so better.
            parsed = from_json(body, allow_inf_nan=True)
        except ValueError as error:
            hint = " (text must be valid Unicode, without lone surrogates)" if "hex escape" in str(error) else ""
            raise InvalidRequest(f"The body is not valid JSON: {error}{hint}.") from None
        if not isinstance(parsed, dict):
            raise InvalidRequest("The body must be a JSON object.")
        body.clear()
        return understand(parsed)


class FormRequest(LimitedRequest[Body]):
    """A request whose body is a form. Its files are `Upload`s, its other fields texts."""

    def _understood(self, body: bytearray, bounds: Bounds, understand: Understand[Body]) -> Body:
        form = forms.read(self._given.get("content-type", ""), body)
        body.clear()
        return understand(form)
