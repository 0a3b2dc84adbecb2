"""The dialects whose routes have the same tests, and the few things in which these dialects differ."""

from dataclasses import dataclass

import pytest
from pydantic import BaseModel

from gateway.dialects.openai import images_responses
from gateway.dialects.openai import response_models as openai_models
from gateway.dialects.platform import response_models as platform_models
from tests.wire.openai.text_requests import CHAT, CHAT_STREAM, PLATFORM_CHAT, PLATFORM_CHAT_STREAM, TextRoute


@dataclass(frozen=True, slots=True)
class WireDialect:
    """A dialect as its callers see it. Errors and the fields of requests are the same in each."""

    name: str
    prefix: str
    """The path of every route begins with it. It is also the base URL of OpenAI's client."""
    chat: TextRoute
    chat_stream: TextRoute
    chat_id_prefix: str
    chat_answer: type[BaseModel]
    images_answer: type[BaseModel]
    base64_prefix: str
    """Images in base64 begin with it."""
    url_fields: frozenset[str]
    """Fields of an image that is returned as a URL."""

    def __str__(self) -> str:
        return self.name

    @property
    def generations(self) -> str:
        return f"{self.prefix}/images/generations"

    @property
    def edits(self) -> str:
        return f"{self.prefix}/images/edits"


OPENAI = WireDialect(
    name="openai",
    prefix="/v1",
    chat=CHAT,
    chat_stream=CHAT_STREAM,
    chat_id_prefix="chatcmpl-",
    chat_answer=openai_models.CreateChatCompletionResponse,
    images_answer=images_responses.ImagesResponse,
    base64_prefix="",
    url_fields=frozenset({"url", "seed"}),
)
PLATFORM = WireDialect(
    name="platform",
    prefix="/tritonic/v1",
    chat=PLATFORM_CHAT,
    chat_stream=PLATFORM_CHAT_STREAM,
    chat_id_prefix="foaicmpl-",
    chat_answer=platform_models.ChatAnswer,
    images_answer=platform_models.Images,
    base64_prefix="data:image/png;base64,",
    url_fields=frozenset({"url"}),
)

for_each_dialect = pytest.mark.parametrize("dialect", [OPENAI, PLATFORM], ids=str)
"""Run a test once for each dialect."""
