"""OpenAI's API, https://platform.openai.com/docs/api-reference. Other dialects may import its bodies from `wire`."""

from gateway.dialects.dialect import Dialect
from gateway.dialects.openai import chat, completions, embeddings, images, images_responses, models, response_models
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS

OPENAI = Dialect(
    name="openai",
    prefixes=("/v1",),
    # Most frequent first: a path is compared with one route after the other.
    routers=(chat.router, completions.router, embeddings.router, images.router, models.router),
    errors=OPENAI_ERRORS,
    stream_events=(*response_models.STREAM_EVENTS, *images_responses.STREAM_EVENTS),
)
