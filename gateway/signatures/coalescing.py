"""Tokens that wait for one another's delivery, made one event.

A token is never held back for another that has yet to come. But where the next response is here already, because the
gateway or the model's server has more to do than it can, both go on together: what a token costs falls as the load
rises.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from gateway.errors import GatewayError
from gateway.operations.text import EMPTY_DELTA, Delta, TextEvent
from gateway.signatures.call import Responses, unreadable_response


async def coalesce(events: AsyncGenerator[TextEvent], source: Responses) -> AsyncGenerator[TextEvent]:
    """Yield the same events, the texts of those that are here at once in one event for each answer.

    Each response has to bring an event, `NOTHING` where there is nothing else: only then is it known to have come. Both
    iterators are closed at the end.

    Raises `ModelFailed` for whatever else than a `GatewayError` is raised while responses are read: no response,
    however odd, is a failure of the gateway's own.
    """
    held: dict[int, list[Delta]] = {}
    async with aclosing(source), aclosing(events):
        try:
            async for event in events:
                if isinstance(event, Delta) and event is not EMPTY_DELTA and (held or source.has_buffered):
                    held.setdefault(event.index, []).append(event)
                    event = EMPTY_DELTA
                if event is EMPTY_DELTA and source.has_buffered:
                    continue
                if held:
                    for text in _drain(held):
                        yield text
                if event is not EMPTY_DELTA:
                    yield event
        except Exception as error:
            for text in _drain(held):  # what came before the failure
                yield text
            if isinstance(error, GatewayError):
                raise
            raise unreadable_response() from None


def _drain(held: dict[int, list[Delta]]) -> Iterator[Delta]:
    """Take out what is held."""
    taken = list(held.values())
    held.clear()
    for deltas in taken:
        yield deltas[0] if len(deltas) == 1 else _merge(deltas)


def _merge(deltas: list[Delta]) -> Delta:
    return Delta(
        deltas[0].index,
        "".join([delta.text for delta in deltas]),
        sum(delta.tokens for delta in deltas),
        tuple(logprob for delta in deltas for logprob in delta.logprobs),
    )
