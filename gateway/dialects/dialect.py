"""A dialect: one API that callers speak, with routes, bodies and errors of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.datastructures import State
from starlette.responses import Response

from gateway.errors import GatewayError
from gateway.http.error_format import ErrorFormat
from gateway.settings import Settings
from gateway.tasks.task import Task


def _has_api_keys(settings: Settings) -> bool:
    return bool(settings.api_keys)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dialect:
    """The parts of a dialect that the application uses.

    `prefixes` are the prefixes of the paths that it owns, `/v1` for example; a segment in braces matches any segment.
    `errors` renders the errors of requests under a prefix that match no route or fail outside their route.
    `stream_events` are the models of stream events for the OpenAPI document. `requires_key` returns whether any route
    requires an API key with these settings, for the OpenAPI document. `render_task` returns the body of a webhook: a
    task of this dialect, from the task and the state of the application; None: webhooks tell the end of tasks in the
    format of Standard Webhooks.
    """

    name: str
    prefixes: tuple[str, ...]
    routers: tuple[APIRouter, ...]
    errors: ErrorFormat
    stream_events: tuple[type[BaseModel], ...] = ()
    requires_key: Callable[[Settings], bool] = _has_api_keys
    render_task: Callable[[Task, State], Mapping[str, Any]] | None = None


class DialectTable:
    """The dialects of one application, found by path.

    Of two prefixes that fit, the one with the earlier literal segment owns the path, then the longer one: `/toy` comes
    before `/{platform}/v1`, and `/v1/messages` before `/v1`.
    """

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        """The first of `dialects` owns every path without a matching prefix.

        Raises `ValueError` if two dialects have the same prefix.
        """
        self._dialects = dialects
        owners: dict[tuple[str, ...], Dialect] = {}
        for dialect in dialects:
            for prefix in dialect.prefixes:
                segments = tuple("{}" if part.startswith("{") else part for part in prefix.strip("/").split("/"))
                if segments in owners:
                    raise ValueError(
                        f"the dialects {owners[segments].name} and {dialect.name} have the same prefix '{prefix}'"
                    )
                owners[segments] = dialect
        self._owners = sorted(owners.items(), key=lambda owner: [part != "{}" for part in owner[0]], reverse=True)

    def in_order(self) -> list[Dialect]:
        """Return the dialects in the order in which their routes must be matched with a path."""
        return list(dict.fromkeys([*(dialect for _, dialect in self._owners), *self._dialects]))

    def find(self, path: str) -> Dialect:
        """Return the dialect that owns a path."""
        parts = path.strip("/").split("/", 8)
        for segments, dialect in self._owners:
            if len(parts) >= len(segments) and all(
                part in ("{}", given) for part, given in zip(segments, parts, strict=False)
            ):
                return dialect
        return self._dialects[0]

    def render_error(self, path: str, error: GatewayError) -> Response:
        """Return the response to a failure on `path`, in the error format of the path's dialect."""
        return self.find(path).errors.render(error)
