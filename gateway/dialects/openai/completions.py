"""POST /v1/completions: https://platform.openai.com/docs/api-reference/completions"""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request
from pydantic import Discriminator, Tag
from starlette.responses import Response

from gateway import delivery
from gateway.catalog import Catalog
from gateway.dialects.openai import errors
from gateway.dialects.openai.text import SamplingFields, refuse, render_usage
from gateway.dialects.route import UNION_TAG, route_class
from gateway.errors import UnsupportedOption
from gateway.operations.complete import Complete
from gateway.operations.text import Delta, Finish, TextEvent, gather

router = APIRouter(route_class=route_class(errors.render))

Prompt = Annotated[
    Annotated[str, Tag(UNION_TAG + "text")] | Annotated[list[Any], Tag(UNION_TAG + "several")],
    Discriminator(lambda value: UNION_TAG + ("several" if isinstance(value, list) else "text")),
]


class CreateCompletionRequest(SamplingFields):
    """The body of a completion request."""

    prompt: Prompt
    # Known, and not carried yet: a value that asks for something is refused by name.
    best_of: Any = None
    echo: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    suffix: Any = None


NOT_CARRIED: Mapping[str, Callable[[Any], bool]] = {
    "echo": lambda value: value is False,
    "logit_bias": lambda value: value == {},
    "logprobs": lambda _: False,
    "suffix": lambda value: value == "",
}


@router.post("/v1/completions", tags=["Completions"], summary="Continue a text")
async def create_completion(body: CreateCompletionRequest, request: Request) -> Response:
    """Continue `prompt`, whole or as server-sent events."""
    catalog: Catalog = request.app.state.catalog
    complete, streams = parse(body), body.streams
    model = catalog.get(body.model)
    head = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": model.fingerprint,
    }
    events = catalog.run(model, complete, request.state.trace)
    if streams:
        chunks = _Chunks(head, body.include_usage)
        return await delivery.sse(request, events, chunks.render, errors.body, b"[DONE]")
    answers, usage = await delivery.whole(request, gather(events))
    answer = {
        **head,
        "choices": [_choice(index, answer.text, answer.reason) for index, answer in enumerate(answers)],
        "usage": render_usage(usage),
        "code": 0,
        "message": "success",
    }
    return Response(orjson.dumps(answer), media_type="application/json")


def parse(body: CreateCompletionRequest) -> Complete:
    """Return the operation that `body` asks for. Raises `InvalidRequest` and `UnsupportedOption`."""
    refuse(body, NOT_CARRIED)
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise UnsupportedOption("'best_of' is supported only where it equals 'n'.", param="best_of")
    prompt = body.prompt
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise UnsupportedOption(
                "'prompt' must be one string; several prompts and token ids are not supported yet.", param="prompt"
            )
        prompt = prompt[0]
    return Complete(model=body.model, prompt=prompt, sampling=body.sampling(body.max_tokens))


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}


class _Chunks:
    """Renders events as chunks of a `text_completion`."""

    def __init__(self, head: Mapping[str, Any], include_usage: bool) -> None:
        self._head = head
        self._include_usage = include_usage

    def render(self, event: TextEvent) -> Iterable[bytes]:
        """Yield the JSON of the chunk that `event` becomes, if any."""
        usage: dict[str, Any] = {"usage": None} if self._include_usage else {}
        if isinstance(event, Finish):
            yield orjson.dumps({**self._head, "choices": [_choice(event.index, "", event.reason)], **usage})
        elif isinstance(event, Delta):
            if event.text:
                yield orjson.dumps({**self._head, "choices": [_choice(event.index, event.text, None)], **usage})
        elif self._include_usage:
            yield orjson.dumps({**self._head, "choices": [], "usage": render_usage(event)})
