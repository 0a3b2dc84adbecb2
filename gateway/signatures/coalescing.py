"""Merges the deltas of responses that have already arrived into one event.

A token never waits for a response that has not arrived. If the next response is buffered already, because the gateway
or the model's server is overloaded, both are delivered together: the cost per token falls as the load rises.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from gateway.errors import GatewayError
from gateway.operations.text import EMPTY_DELTA, Delta, TextEvent
from gateway.signatures.call import Responses, unreadable_response


async def coalesce(events: AsyncGenerator[TextEvent], source: Responses) -> AsyncGenerator[TextEvent]:
    """Yield the same events, with the deltas of all buffered responses merged into one for each answer.

    `events` are read from `source` and must have an event for each response, `EMPTY_DELTA` where it brings nothing:
    only then is the response known to have been read. Both iterators are closed at the end.

    Raises `ModelFailed` for every exception that is no `GatewayError`: a response that cannot be read is a failure of
    the model, not of the gateway.
    """
    pending: dict[int, list[Delta]] = {}
    async with aclosing(source), aclosing(events):
        try:
            async for event in events:
                if isinstance(event, Delta) and event is not EMPTY_DELTA and (pending or source.has_buffered):
                    pending.setdefault(event.index, []).append(event)
                    event = EMPTY_DELTA
                if event is EMPTY_DELTA and source.has_buffered:
                    continue
                if pending:
                    for text in _drain(pending):
                        yield text
                if event is not EMPTY_DELTA:
                    yield event
        except Exception as error:
            for text in _drain(pending):  # these arrived before the failure
                yield text
            if isinstance(error, GatewayError):
                raise
            raise unreadable_response() from None


def _drain(pending: dict[int, list[Delta]]) -> Iterator[Delta]:
    """Remove the pending deltas and yield one for each answer."""
    taken = list(pending.values())
    pending.clear()
    for deltas in taken:
        yield deltas[0] if len(deltas) == 1 else _merge(deltas)


def _merge(deltas: list[Delta]) -> Delta:
    return Delta(
        deltas[0].index,
        "".join([delta.text for delta in deltas]),
        sum(delta.tokens for delta in deltas),
        tuple(logprob for delta in deltas for logprob in delta.logprobs),
    )
