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
from gateway.places import Holding

Body = TypeVar("Body")
Understand = Callable[[dict[str, Any]], Body]

_FEW_VALUES = 2000
"""Up to these, and where it is not `LARGE`, a body is worked on by the loop itself."""


class LimitedRequest(Request, Generic[Body]):
    """A request whose body is read within limits, whatever its content type says. FastAPI takes what it `holds`.

    `size` is that of the body in bytes, `large` whether work on it belongs beside the loop (`gateway.http.apart`). The
    bytes are given up once they are understood.
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

        Raises `RequestTooLarge`, `RequestTimeout`, `InvalidRequest`, `Overloaded`, and what `understand` raises.
        """
        encoding = self._given.get("content-encoding", "")
        if encoding.lower() not in ("", "identity"):
            raise InvalidRequest(f"The body must not be encoded; this one is said to be '{encoding[:64]}'.")
        try:
            async with asyncio.timeout(seconds):
                body = await self._within(limit, holding)
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

    async def _within(self, limit: int, holding: Holding) -> bytearray:
        too_large = RequestTooLarge(f"The body is larger than this service takes, {limit} bytes.")
        length = self._given.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise too_large
        # What comes in pieces of a byte must not be kept in a million objects.
        body = bytearray()
        try:
            async with aclosing(self.stream()) as chunks:
                async for chunk in chunks:
                    if self.size + len(chunk) > limit:
                        raise too_large
                    holding.take(len(chunk))
                    self.size += len(chunk)
                    body += chunk
        except BaseException:
            body.clear()  # whoever keeps the error keeps this frame
            raise
        return body


class JSONRequest(LimitedRequest[Body]):
    """A request whose body is JSON, parsed strictly."""

    def _understood(self, body: bytearray, bounds: Bounds, understand: Understand[Body]) -> Body:
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
