"""What back ends that tokenise with special tokens are given of a template that writes the first of them."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.triton.asking import Ask
from tests.triton.foreign.asking import asked, chat

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


async def test_it_is_theirs_to_write(ask: Ask, journal: Callable[[], list[dict[str, Any]]]) -> None:
    for stream in (False, True):
        body = chat("llmapi_deltas", "a", stream=stream)
        await ask(body)
        text = body["messages"][0]["content"]
        assert asked(journal(), "llmapi_deltas")["text_input"]["values"] == [text]
