"""The output collector: the moment at which tokens are sent, and the tokens that share a response."""

from dataclasses import dataclass, field

import pytest

from backends.llm.engine import Delta, Logprob
from backends.llm.output_collector import OutputCollector, RequestOutput
from backends.llm.sampling_params import SamplingParams
from backends.serving.errors import GenerationError


@dataclass
class RecordingSender:
    sent: list[str] = field(default_factory=list)
    answers: list[RequestOutput] = field(default_factory=list)
    failed: list[GenerationError] = field(default_factory=list)

    def send(self, answer: RequestOutput, num_prompt_tokens: int, *, final: bool) -> None:
        self.sent.append("".join(answer.texts))
        self.answers.append(answer)

    def fail(self, error: GenerationError) -> None:
        self.failed.append(error)


def sent_texts(texts: list[str], tokens_per_response: int, *, stream: bool = True) -> list[str]:
    """Return the texts that the sender gets, if the tokens arrive one by one and the last has a finish reason."""
    sender = RecordingSender()
    collector = OutputCollector(sender, stream=stream, together=lambda: tokens_per_response)
    collector.begin(SamplingParams(), 5, "")
    for i, text in enumerate(texts):
        if collector.add(Delta(0, text, 1, "stop" if i + 1 == len(texts) else None)):
            collector.flush(lambda: None)
    return sender.sent


@pytest.mark.parametrize(
    ("tokens_per_response", "expected"),
    [
        (1, ["a", "b", "c", "d", "e", "f"]),
        (2, ["a", "bc", "de", "f"]),
        (4, ["a", "bcde", "f"]),
        (9, ["a", "bcdef"]),
    ],
)
def test_first_and_last_token_are_sent_at_once(tokens_per_response: int, expected: list[str]) -> None:
    assert sent_texts(list("abcdef"), tokens_per_response) == expected


def test_token_without_text_is_not_sent_alone() -> None:
    assert sent_texts(["", "", "a", "", "", "b", "c", "d"], 2) == ["a", "b", "cd"]


def test_without_streaming_one_response_carries_everything() -> None:
    assert sent_texts(list("abc"), 1, stream=False) == ["abc"]


def test_tokens_per_response_is_read_for_each_token() -> None:
    sender, tokens_per_response = RecordingSender(), 4
    collector = OutputCollector(sender, stream=True, together=lambda: tokens_per_response)
    collector.begin(SamplingParams(), 5, "")
    for text in "abc":
        if collector.add(Delta(0, text, 1, None)):
            collector.flush(lambda: None)
    assert sender.sent == ["a"]
    tokens_per_response = 1  # the other sequences have ended
    assert collector.add(Delta(0, "d", 1, None))
    collector.flush(lambda: None)
    assert sender.sent == ["a", "bcd"]


def entry(logprob: float) -> tuple[Logprob, ...]:
    return (Logprob(7, logprob, 1), Logprob(8, -9.0, 2))


def answers(sampling: SamplingParams, *, summed: bool) -> list[RequestOutput]:
    """Return three responses with two answers to a prompt of two tokens."""
    sender = RecordingSender()
    collector = OutputCollector(sender, stream=True)
    collector.begin(sampling, 2, "", summed=summed)
    prompt_entries = ((Logprob(1, None, None),), entry(-50.0)) if sampling.prompt_logprobs is not None else ()
    for delta in (
        Delta(0, "a", 1, None, (*prompt_entries, entry(-1.0))),
        Delta(1, "b", 1, None, (entry(-2.0),)),
        Delta(0, "c", 1, "length", (entry(-0.5),)),
        Delta(1, "", 1, "stop"),
    ):
        if collector.add(delta):
            collector.flush(lambda: None)
    return sender.answers


@pytest.mark.parametrize("prompt_logprobs", [None, 0])
def test_cumulative_logprobs_cover_each_answers_own_tokens(prompt_logprobs: int | None) -> None:
    outputs = answers(SamplingParams(n=2, logprobs=1, prompt_logprobs=prompt_logprobs), summed=True)
    assert [answer.cumulative_logprobs for answer in outputs] == [(-1.0, 0.0), (-1.0, -2.0), (-1.5, -2.0), (-1.5, -2.0)]
    assert len(outputs[0].logprobs[0]) == (1 if prompt_logprobs is None else 3)


def test_logprobs_are_sent_only_on_request() -> None:
    assert {answer.logprobs for answer in answers(SamplingParams(n=2), summed=True)} == {()}
    assert answers(SamplingParams(n=2), summed=True)[-1].cumulative_logprobs == (-1.5, -2.0)
    outputs = answers(SamplingParams(n=2, logprobs=1), summed=False)
    assert {answer.cumulative_logprobs for answer in outputs} == {()}
    assert [tuple(map(len, answer.logprobs)) for answer in outputs] == [(1, 0), (0, 1), (1, 0), (0, 0)]


def test_unfinished_answer_has_the_vllm_backends_finish_reason() -> None:
    reasons = [answer.finish_reasons for answer in answers(SamplingParams(n=2), summed=False)]
    assert reasons == [("None", "None"), ("None", "None"), ("length", "None"), ("length", "stop")]
