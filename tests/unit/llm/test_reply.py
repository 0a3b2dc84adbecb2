"""When tokens travel, and which of them together."""

from dataclasses import dataclass, field

import pytest

from backends.llm.engine import Delta
from backends.llm.reply import Answer, Reply
from backends.serving.errors import GenerationError


@dataclass
class Client:
    sent: list[str] = field(default_factory=list)
    failed: list[GenerationError] = field(default_factory=list)

    def send(self, answer: Answer, num_prompt_tokens: int, *, final: bool) -> None:
        self.sent.append("".join(answer.texts))

    def fail(self, error: GenerationError) -> None:
        self.failed.append(error)


def sent(texts: list[str], together: int, *, stream: bool = True) -> list[str]:
    """What the client gets of tokens that came one by one, the last with the end."""
    client = Client()
    reply = Reply(client, stream=stream, together=lambda: together)
    reply.begin(1, 5, "")
    for i, text in enumerate(texts):
        if reply.add(Delta(0, text, 1, "stop" if i + 1 == len(texts) else None)):
            reply.flush(lambda: None)
    return client.sent


@pytest.mark.parametrize(
    ("together", "expected"),
    [
        (1, ["a", "b", "c", "d", "e", "f"]),
        (2, ["a", "bc", "de", "f"]),
        (4, ["a", "bcde", "f"]),
        (9, ["a", "bcdef"]),
    ],
)
def test_the_first_and_the_last_never_wait(together: int, expected: list[str]) -> None:
    assert sent(list("abcdef"), together) == expected


def test_a_token_without_text_is_no_reason_to_send() -> None:
    assert sent(["", "", "a", "", "", "b", "c", "d"], 2) == ["a", "b", "cd"]


def test_what_is_not_streamed_travels_once() -> None:
    assert sent(list("abc"), 1, stream=False) == ["abc"]


def test_the_load_is_asked_for_each_token() -> None:
    client, load = Client(), 4
    reply = Reply(client, stream=True, together=lambda: load)
    reply.begin(1, 5, "")
    for text in "abc":
        if reply.add(Delta(0, text, 1, None)):
            reply.flush(lambda: None)
    assert client.sent == ["a"]
    load = 1  # the other rows have ended
    assert reply.add(Delta(0, "d", 1, None))
    reply.flush(lambda: None)
    assert client.sent == ["a", "bcd"]
