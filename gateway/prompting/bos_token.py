"""Remove the token that begins a sequence from a prompt where the model's backend adds it itself.

Chat templates write `bos_token` where their checkpoint has one, and the tokenizers of most checkpoints put it before a
text, too: the prompt would begin with two. The card's `add_bos_token` tells whether the backend adds it
(docs/models.md).
"""

from dataclasses import replace

from gateway.model_card.card import TextCard
from gateway.operations.complete import Complete


def strip_bos(request: Complete, card: TextCard) -> Complete:
    """Return `request` without a leading `bos_token`, where the backend of the model adds one.

    A `bos_token` that lies in one of the request's `literal_spans` is the caller's text and stays.
    """
    prompt = request.prompt
    if not card.add_bos_token or not isinstance(prompt, str):
        return request
    bos = card.special_tokens.get("bos_token")
    if not bos or not prompt.startswith(bos) or prompt == bos:
        return request
    size, spans = len(bos.encode()), request.literal_spans
    if spans and spans[0][0] < size:
        return request
    return replace(
        request,
        prompt=prompt[len(bos) :],
        literal_spans=tuple((start - size, end - size) for start, end in spans),
    )
