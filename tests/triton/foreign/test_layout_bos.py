"""A back end that adds the BOS token itself gets the rendered prompt without it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.triton.foreign.scripted_requests import chat, last_inputs
from tests.triton.text_client import TextClient

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


async def test_the_bos_token_of_the_template_is_left_out(
    complete: TextClient, journal: Callable[[], list[dict[str, Any]]]
) -> None:
    for stream in (False, True):
        body = chat("llmapi_deltas", "a", stream=stream)
        await complete(body)
        text = body["messages"][0]["content"]
        assert last_inputs(journal(), "llmapi_deltas")["text_input"]["values"] == [text]
