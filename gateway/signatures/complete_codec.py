"""The codec of completions: wraps the codec of texts for requests with `max_tokens` 0, which return only the prompt.

Third-party models generate at least one token. The request asks for one, which is dropped here. `Usage` still counts
it, since the engine has generated it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

from gateway.model_card.card import ModelCard
from gateway.operations.complete import Complete
from gateway.operations.text import Delta, Finish, TextEvent
from gateway.signatures.call import Call
from gateway.signatures.text_codec import TextCodec


@dataclass(frozen=True, slots=True)
class CompleteCodec:
    """Encodes completions. Requests with `max_tokens` 0 work with every model."""

    text: TextCodec

    def num_requests(self, request: Complete, card: ModelCard) -> int:
        """Return how many requests the answers take, see `Codec.num_requests`."""
        return self.text.num_requests(request, card)

    def open(self, request: Complete, card: ModelCard) -> Call:
        """Encode a request, see `Codec.open`."""
        # `backends/llm`, the only one that takes token ids, can generate no token.
        if request.sampling.max_tokens != 0 or card.has_input("token_ids"):
            return self.text.open(request, card)
        one_token = replace(request, echo=False, sampling=replace(request.sampling, max_tokens=1))
        prompt = request.prompt if request.echo and isinstance(request.prompt, str) else None
        return replace(self.text.open(one_token, card), read=partial(drop_completion, prompt))


def drop_completion(prompt: str | None, event: TextEvent) -> Iterable[TextEvent]:
    """Return the events for an event of the one token: none for its text, and the end of each answer.

    `prompt` is the text to echo; None: no echo.
    """
    if isinstance(event, Delta):
        return ()
    if isinstance(event, Finish):
        end = Finish(event.index, "length")
        return (end,) if prompt is None else (Delta(event.index, prompt), end)
    return (event,)
