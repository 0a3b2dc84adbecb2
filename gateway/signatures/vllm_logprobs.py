"""Decodes the log probabilities that Triton's vLLM backend and `backends/llm` send: JSON in the tensor `logprobs`."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

from gateway.errors import ModelFailed
from gateway.operations.complete import Complete
from gateway.operations.text import Logprob, TokenLogprob
from gateway.triton.tensors import InferResponse

_TOKENS_PER_YIELD = 64
"""Tokens that are decoded before the event loop runs others: one with 20 alternatives takes 0.1 ms."""
_LARGE_DOCUMENT = 64 * 1024
"""Characters of JSON beyond which each item is parsed by itself."""
_JSON = json.JSONDecoder()
_WHITE = re.compile(r"[ \t\r\n]*")


async def decode(response: InferResponse, request: Complete, prompt_tokens: int) -> dict[int, tuple[TokenLogprob, ...]]:
    """Return the log probabilities of each answer's new tokens, by its index; empty where the response has none.

    The first answer begins with those of the prompt, where they were requested and `prompt_tokens` is above 0.
    """
    if "logprobs" not in response:
        return {}
    sampling = request.sampling
    count = sampling.logprobs or sampling.prompt_logprobs or 0
    hides = sampling.skip_special_tokens and not request.show_special_tokens
    prompt = 0 if sampling.prompt_logprobs is None else prompt_tokens
    found = {}
    for index, document in enumerate(response.strings("logprobs")):
        tokens = []
        for i, entry in enumerate(_entries(document)):
            if i % _TOKENS_PER_YIELD == _TOKENS_PER_YIELD - 1:
                await asyncio.sleep(0)
            if entry:
                tokens.append(_token_logprob(entry, count, i < prompt, hides))
        found[index] = tuple(tokens)
        prompt = 0
    return found


def _entries(document: str) -> Iterator[Any]:
    """Yield the items of a JSON list; none for `null` or an empty document. Those of a long prompt have megabytes."""
    if len(document) < _LARGE_DOCUMENT or not document.startswith("["):
        yield from (json.loads(document) if document else None) or ()
        return
    at, end = 1, len(document)
    while True:
        at = _skip_whitespace(document, at)
        entry, at = _JSON.raw_decode(document, at)
        yield entry
        at = _skip_whitespace(document, at)
        if document[at : at + 1] != ",":
            break
        at += 1
    if document[at : at + 1] != "]" or _skip_whitespace(document, at + 1) != end:
        raise ModelFailed("The model's log probabilities are not valid JSON.")


def _skip_whitespace(document: str, at: int) -> int:
    found = _WHITE.match(document, at)
    return found.end() if found else at


def _token_logprob(entry: dict[str, dict[str, Any]], count: int, prompt: bool, hides: bool) -> TokenLogprob:
    """Return a token with its `count` likeliest alternatives.

    The chosen token comes first in an entry, and is one of the alternatives where its rank is at most `count`.
    """
    chosen, *others = entry.values()
    ranked = (member for member in (chosen, *others) if member["rank"] is not None and member["rank"] <= count)
    likeliest = sorted(ranked, key=lambda member: member["rank"])
    hidden = hides and not prompt and bool(chosen.get("special"))
    return TokenLogprob(_likelihood(chosen), tuple(map(_likelihood, likeliest)), prompt, hidden)


def _likelihood(member: dict[str, Any]) -> Logprob:
    token = member["decoded_token"] or ""
    written = token.encode()  # raises for half a surrogate pair
    data = bytes(member["bytes"]) if "bytes" in member else written
    logprob = member["logprob"]
    # JSON has no infinity; OpenAI writes -9999 for an impossible token.
    return Logprob(token, None if logprob is None else max(logprob, -9999.0), data)
