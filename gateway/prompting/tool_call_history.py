"""Prepares the tool calls of earlier turns, and their results, for chat templates.

Most templates write neither ids nor names of calls: the model assigns the first result to the first call, and so on. So
results are sorted in the order of their calls, and missing ids and names are filled in.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, NoReturn

from gateway.errors import InvalidRequest
from gateway.operations.chat import Message, ToolCall

# The form of ids that the templates of Mistral's models require.
_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")


def order_results(messages: Sequence[Message], *, short_ids: bool = False) -> tuple[Message, ...]:
    """Return the messages with each run of tool messages in the order of the calls before it.

    Every call of the returned messages has an id, and every tool message the id and the name of its call, if known.
    Results of a single call, and results without ids, keep their order. With `short_ids`, ids have nine letters and
    digits.

    Raises `InvalidRequest` if several calls have ids and a result has an unknown id, or that of another result: the
    model could assign it to the wrong call.
    """
    found = tuple(_order(messages))
    return tuple(map(_shorten_ids, found)) if short_ids else found


def render_call(call: ToolCall, *, objects: bool = False) -> dict[str, Any]:
    """Return a call in the form that templates take: with parsed arguments, which they write as JSON themselves.

    Arguments that are no JSON object stay a text; with `objects` they are wrapped in an object.
    """
    arguments: Any = call.arguments
    if call.has_valid_arguments:
        arguments = json.loads(arguments or "{}")
    elif objects:
        arguments = {"arguments": arguments}
    else:
        arguments = _OpaqueText(arguments)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


class _OpaqueText(str):
    """A text that cannot be iterated: templates iterate over the members of arguments, and would read characters."""

    __slots__ = ()

    def __iter__(self) -> NoReturn:
        raise TypeError("these arguments are a text")


def _order(messages: Sequence[Message]) -> Iterator[Message]:
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if not message.tool_calls:
            yield message
            continue
        made = message.tool_calls
        calls = tuple(call if call.id else replace(call, id=f"call_{at}_{i}") for i, call in enumerate(made))
        yield replace(message, tool_calls=calls)
        first = at
        while at < len(messages) and messages[at].role == "tool":
            at += 1
        if at > first:
            yield from _match_results(messages[first:at], first, calls, all(call.id for call in made))


def _match_results(
    results: Sequence[Message], first: int, calls: Sequence[ToolCall], has_ids: bool
) -> Iterator[Message]:
    """Yield the results of `calls` in their order.

    `has_ids`: the ids are the caller's. `first` is the index of the first result among all messages.
    """
    positions = {call.id: position for position, call in enumerate(calls)}
    unclear = len(calls) == 1 or not has_ids or len(positions) < len(calls)
    if unclear or not any(result.tool_call_id for result in results):
        for position, result in enumerate(results):
            yield _fill_ids(result, calls[position] if position < len(calls) else None)
        return
    matched: dict[int, Message] = {}
    for number, result in enumerate(results, first):
        bound = positions.get(result.tool_call_id or "")
        if bound is None or bound in matched:
            path = f"messages[{number}].tool_call_id"
            problem = "does not match a tool call of the previous message" if bound is None else "has a result already"
            raise InvalidRequest(f"'{path}', {(result.tool_call_id or '')[:64]!r}, {problem}.", param=path)
        matched[bound] = result
    for position in sorted(matched):
        yield _fill_ids(matched[position], calls[position])


def _fill_ids(result: Message, call: ToolCall | None) -> Message:
    if call is None:
        return result
    return replace(result, tool_call_id=result.tool_call_id or call.id, name=result.name or call.name)


def _shorten_ids(message: Message) -> Message:
    if message.tool_call_id is None and not message.tool_calls:
        return message
    calls = tuple(replace(call, id=_short_id(call.id)) for call in message.tool_calls)
    id = message.tool_call_id
    return replace(message, tool_calls=calls, tool_call_id=None if id is None else _short_id(id))


def _short_id(id: str) -> str:
    return id if _SHORT_ID.fullmatch(id) else sha256(id.encode()).hexdigest()[:9]
