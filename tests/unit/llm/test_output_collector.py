"""When tokens travel, and which of them together."""

from dataclasses import dataclass, field

import pytest

from backends.llm.engine import Delta, Logprob
from backends.llm.output_collector import OutputCollector, RequestOutput
from backends.llm.sampling_params import SamplingParams
from backends.serving.errors import GenerationError


@dataclass
class Client:
    sent: list[str] = field(default_factory=list)
    answers: list[RequestOutput] = field(default_factory=list)
    failed: list[GenerationError] = field(default_factory=list)

    def send(self, answer: RequestOutput, num_prompt_tokens: int, *, final: bool) -> None:
        self.sent.append("".join(answer.texts))
        self.answers.append(answer)

    def fail(self, error: GenerationError) -> None:
        self.failed.append(error)


def sent(texts: list[str], together: int, *, stream: bool = True) -> list[str]:
    """What the client gets of tokens that came one by one, the last with the end."""
    client = Client()
    reply = OutputCollector(client, stream=stream, together=lambda: together)
    reply.begin(SamplingParams(), 5, "")
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
    reply = OutputCollector(client, stream=True, together=lambda: load)
    reply.begin(SamplingParams(), 5, "")
    for text in "abc":
        if reply.add(Delta(0, text, 1, None)):
            reply.flush(lambda: None)
    assert client.sent == ["a"]
    load = 1  # the other rows have ended
    assert reply.add(Delta(0, "d", 1, None))
    reply.flush(lambda: None)
    assert client.sent == ["a", "bcd"]


def entry(logprob: float) -> tuple[Logprob, ...]:
    return (Logprob(7, logprob, 1), Logprob(8, -9.0, 2))


def answers(sampling: SamplingParams, *, summed: bool) -> list[RequestOutput]:
    """Two answers to a prompt of two tokens, in three responses."""
    client = Client()
    reply = OutputCollector(client, stream=True)
    reply.begin(sampling, 2, "", summed=summed)
    of_prompt = ((Logprob(1, None, None),), entry(-50.0)) if sampling.prompt_logprobs is not None else ()
    for delta in (
        Delta(0, "a", 1, None, (*of_prompt, entry(-1.0))),
        Delta(1, "b", 1, None, (entry(-2.0),)),
        Delta(0, "c", 1, "length", (entry(-0.5),)),
        Delta(1, "", 1, "stop"),
    ):
        if reply.add(delta):
            reply.flush(lambda: None)
    return client.answers


@pytest.mark.parametrize("prompt_logprobs", [None, 0])
def test_sums_are_those_of_the_answers_own_tokens_up_to_each_response(prompt_logprobs: int | None) -> None:
    found = answers(SamplingParams(n=2, logprobs=1, prompt_logprobs=prompt_logprobs), summed=True)
    assert [answer.cumulative_logprobs for answer in found] == [(-1.0, 0.0), (-1.0, -2.0), (-1.5, -2.0), (-1.5, -2.0)]
    assert len(found[0].logprobs[0]) == (1 if prompt_logprobs is None else 3)


def test_log_probabilities_that_nobody_asked_for_are_not_told() -> None:
    assert {answer.logprobs for answer in answers(SamplingParams(n=2), summed=True)} == {()}
    assert answers(SamplingParams(n=2), summed=True)[-1].cumulative_logprobs == (-1.5, -2.0)
    found = answers(SamplingParams(n=2, logprobs=1), summed=False)
    assert {answer.cumulative_logprobs for answer in found} == {()}
    assert [tuple(map(len, answer.logprobs)) for answer in found] == [(1, 0), (0, 1), (1, 0), (0, 0)]


def test_an_answer_that_grows_says_so_as_the_vllm_backend_does() -> None:
    reasons = [answer.finish_reasons for answer in answers(SamplingParams(n=2), summed=False)]
    assert reasons == [("None", "None"), ("None", "None"), ("length", "None"), ("length", "stop")]
