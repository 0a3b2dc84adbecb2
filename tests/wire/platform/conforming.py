"""Whether an answer of a platform is exactly what the OpenAPI document says."""

from pydantic import TypeAdapter

from gateway.dialects.platform import answers
from gateway.dialects.vocabulary import documented
from tests.wire.openai.conforming import exactly

_CHAT = "/{platform}/v1/chat/completions"


def conforms(path: str, status: int, content_type: str, body: bytes) -> None:
    """Check the answer of a route of this dialect; others are left alone."""
    if not path.startswith("/{platform}/"):
        return
    if content_type.startswith("text/event-stream"):
        *blocks, last = body.decode().removesuffix("\n\n").split("\n\n")
        for block in blocks:
            exactly(answers.ChatChunk, block.removeprefix("data: "))
        assert last == "data: [DONE]" or exactly(documented.ErrorResponse, last.removeprefix("data: "))
        return
    assert content_type == "application/json"
    if status != 200:
        exactly(documented.ErrorResponse, body)
    elif path == _CHAT:
        exactly(answers.ChatAnswer, body)
    else:
        adapter = TypeAdapter(answers.Images | answers.ImageTask | answers.ImageTaskList)
        adapter.validate_json(body, strict=True, extra="forbid")
