"""Requests for text from their tensors to their responses, with a recording sender."""

import json
import threading
import weakref

import numpy as np
import pytest

from backends.llm.active_request import Request
from backends.llm.engine import Delta, Generation, GenerationFailed
from backends.llm.output_collector import RequestOutput
from backends.llm.prompt_tokenizer import PromptTokenizer
from backends.llm.request_frontend import LLMFrontend
from backends.llm.structured_outputs.grammar_compiler import GrammarCompiler
from backends.serving import errors
from tests.unit.llm.waiting import wait_until


class RecordingSender:
    """A response sender that records responses. `disconnected` simulates a disconnect, and sending waits at `gate`."""

    def __init__(self):
        self.disconnected = False
        self.sent: list[tuple[RequestOutput, int]] = []
        self.error: errors.GenerationError | None = None
        self.ended = threading.Event()
        self.sending = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[str] = set()

    def is_cancelled(self):
        return self.disconnected

    def send(self, answer, num_prompt_tokens, *, final):
        assert not self.ended.is_set(), "a response after the last"
        self.threads.add(threading.current_thread().name)
        self.sending.set()
        assert self.gate.wait(60)
        self.sent.append((answer, num_prompt_tokens))
        if final:
            self.ended.set()

    def fail(self, error):
        assert not self.ended.is_set(), "a response after the last"
        self.error = error
        self.ended.set()

    def wait(self):
        assert self.ended.wait(60), "no last response"
        return self

    def text(self, index=0):
        return "".join(answer.texts[index] for answer, _ in self.sent)


@pytest.fixture
def open_frontend(scripted_engine, tokenizer):
    frontends = []

    def make(max_open=100, bos="<s>", **options):
        engine, runner = scripted_engine(**options)
        prompts = PromptTokenizer(
            tokenizer, bos=bos, vocab_size=engine.vocab_size, context_length=engine.context_length
        )
        grammars = GrammarCompiler(tokenizer, engine.vocab_size, frozenset({1, 2}))
        frontends.append(LLMFrontend(engine, prompts, max_open, grammars=grammars))
        return frontends[-1], engine, runner

    yield make
    for frontend in frontends:
        frontend.close()


def ask(
    frontend,
    text=b"hello",
    *,
    token_ids=None,
    stream=True,
    exclude_input=True,
    raw=None,
    blocked=False,
    images=(),
    literal_spans=None,
    cumulative_logprob=False,
    **sampling,
):
    """Send a request, and return its sender; `blocked` clears the sender's gate."""
    sender = RecordingSender()
    if blocked:
        sender.gate.clear()
    options = json.dumps({"temperature": 0, "max_tokens": 5} | sampling).encode() if raw is None else raw
    frontend.add_request(
        Request(text, token_ids, stream, exclude_input, options, images, literal_spans, cumulative_logprob), sender
    )
    return sender


def expected(runner, tokenizer, text, count):
    return tokenizer.decode(runner.expected_answer(tokenizer.encode(text).ids, count))


def test_a_stream_and_a_whole_answer_have_the_same_text(open_frontend, tokenizer):
    frontend, _, runner = open_frontend()
    streamed, unstreamed = ask(frontend, max_tokens=30).wait(), ask(frontend, max_tokens=30, stream=False).wait()
    assert streamed.text() == unstreamed.text() == expected(runner, tokenizer, "hello", 30)
    assert len(unstreamed.sent) == 1 <= len(streamed.sent)
    for sender in (streamed, unstreamed):
        assert sender.sent[-1][0].finish_reasons == ("length",)
        assert sum(answer.num_tokens for answer, _ in sender.sent) == 30
        assert {count for _, count in sender.sent} == {5}
    assert all(answer.finish_reasons == ("None",) for answer, _ in streamed.sent[:-1])


@pytest.mark.parametrize(
    ("raw", "count"),
    [
        ({"temperature": 0}, 16),
        ({"temperature": "0", "max_tokens": "6"}, 6),
        ({"temperature": 0, "structured_outputs": '{"regex": "[a-z]{40}"}'}, 16),
        (b'{"temperature": 0}', None),
    ],
)
def test_an_answer_without_max_tokens_has_the_default_length(open_frontend, raw, count):
    """With the tensor, which the gateway sends, an answer may fill the context; otherwise it has 16 tokens."""
    frontend, engine, _ = open_frontend()
    sender = ask(frontend, raw=raw, stream=False).wait()
    assert sender.error is None
    assert sender.sent[0][0].num_tokens == (count or engine.context_length - 5)
    assert sender.sent[0][0].finish_reasons == ("length",)


@pytest.mark.parametrize(
    ("parameters", "failure"),
    [
        ({"beams": 4}, "[unsupported_option:beams]"),
        ({"temperature": "hot"}, "[invalid_value:temperature]"),
        ({"structured_outputs": "{"}, "[invalid_value:structured_outputs]"),
    ],
)
def test_wrong_request_parameters_are_refused_by_name(open_frontend, parameters, failure):
    frontend, _, _ = open_frontend()
    assert str(ask(frontend, raw=parameters).wait().error).startswith(failure)


@pytest.mark.parametrize("stream", [True, False])
def test_the_sum_of_log_probabilities_is_sent_with_and_without_its_summands(open_frontend, stream):
    frontend, _, _ = open_frontend()
    with_logprobs = ask(frontend, stream=stream, max_tokens=6, logprobs=2, cumulative_logprob=True).wait()
    sum_only = ask(frontend, stream=stream, max_tokens=6, cumulative_logprob=True).wait()
    summands = [entry[0].logprob for answer, _ in with_logprobs.sent for entry in answer.logprobs[0]]
    assert len(summands) == 6
    for sender in (with_logprobs, sum_only):
        assert sender.sent[-1][0].cumulative_logprobs == (pytest.approx(sum(summands)),)
    assert {answer.logprobs for answer, _ in sum_only.sent} == {()}


def test_an_empty_text_is_the_token_that_begins_a_sequence(open_frontend, tokenizer):
    frontend, _, runner = open_frontend(bos="<s>")
    bos = tokenizer.token_to_id("<s>")
    sender = ask(frontend, b"", exclude_input=False).wait()
    assert sender.text() == tokenizer.decode(runner.expected_answer([bos], 5))
    assert {count for _, count in sender.sent} == {1}
    frontend, _, _ = open_frontend(bos=None)
    assert str(ask(frontend, b"").wait().error).startswith("[invalid_value:text_input] The prompt is empty")


def test_the_inputs_are_freed_before_the_answer_ends(open_frontend):
    frontend, _, _ = open_frontend()
    tokens = np.full(400, 20, np.int32)
    tokens_ref = weakref.ref(tokens)
    sender = ask(frontend, None, token_ids=tokens, max_tokens=500, blocked=True)
    del tokens
    wait_until(lambda: tokens_ref() is None)
    assert not sender.ended.is_set()
    sender.gate.set()
    sender.wait()


def test_waiting_deltas_share_a_response_in_order(open_frontend, tokenizer):
    frontend, engine, runner = open_frontend()
    sender = ask(frontend, max_tokens=200, blocked=True)
    wait_until(lambda: engine.stats.tokens_out == 200)
    sender.gate.set()
    sender.wait()
    assert sender.text() == expected(runner, tokenizer, "hello", 200)
    assert len(sender.sent) < 60
    assert len(sender.threads) == 1 and "llm-engine" not in sender.threads


def test_a_slow_client_does_not_delay_the_others(open_frontend):
    frontend, _, _ = open_frontend()
    slow = ask(frontend, max_tokens=300, blocked=True)
    assert slow.sending.wait(60)
    ask(frontend, max_tokens=20).wait()  # the next key belongs to the other sender thread
    assert not slow.sent
    slow.gate.set()
    slow.wait()


def test_several_answers_have_their_own_texts(open_frontend, tokenizer):
    frontend, _, runner = open_frontend()
    unstreamed = ask(frontend, stream=False, n=3, max_tokens=6).wait()
    (answer, _) = unstreamed.sent[0]
    assert answer.texts == (expected(runner, tokenizer, "hello", 6),) * 3
    assert (answer.finish_reasons, answer.num_tokens) == (("length",) * 3, 18)
    streamed = ask(frontend, n=3, max_tokens=6).wait()
    assert [streamed.text(index) for index in range(3)] == list(answer.texts)


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_begins_with_the_prompt_on_request(open_frontend, tokenizer, stream):
    frontend, _, runner = open_frontend()
    answer = expected(runner, tokenizer, "hello", 5)
    assert ask(frontend, stream=stream, exclude_input=False).wait().text() == "hello" + answer
    ids = np.array(tokenizer.encode("hello").ids, np.int32)
    sender = ask(frontend, None, token_ids=ids, stream=stream, exclude_input=False).wait()
    assert sender.text() == "hello" + answer


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"text": b"\xff\xfe"}, "[invalid_value:text_input]"),
        ({"text": "\ud800".encode("utf-8", "surrogatepass")}, "[invalid_value:text_input]"),
        ({"text": None}, "[invalid_value:text_input]"),
        ({"token_ids": np.array([1])}, "[invalid_value:text_input]"),
        ({"text": None, "token_ids": np.array([], np.int32)}, "[invalid_value:token_ids]"),
        ({"text": None, "token_ids": np.array([5, 259])}, "[invalid_value:token_ids]"),
        ({"text": None, "token_ids": np.array([-1])}, "[invalid_value:token_ids]"),
        ({"text": None, "token_ids": np.array([5] * 1000)}, "[context_length_exceeded:token_ids]"),
        ({"text": b"x" * 1000}, "[context_length_exceeded:text_input]"),
        ({"text": b"x" * 1_000_000}, "[context_length_exceeded:text_input] The prompt has at least 142858 tokens"),
        ({"literal_spans": np.array([0, 9])}, "[invalid_value:literal_spans]"),
        (
            {"text": None, "token_ids": np.array([5]), "literal_spans": np.array([0, 1])},
            "[invalid_value:literal_spans]",
        ),
        ({"temperature": -1}, "[invalid_value:temperature]"),
        ({"lora_name": 3}, "[unsupported_option:lora_name]"),
        ({"logprobs": 21}, "[invalid_value:logprobs]"),
        ({"images": (b"", b"")}, "[unsupported_option:image] This model takes no images"),
        ({"structured_outputs": {"json": {"not": {}}}}, "[invalid_value:structured_outputs] This cannot be enforced: "),
        ({"raw": b"{"}, "[invalid_value:sampling_parameters]"),
    ],
)
def test_invalid_inputs_are_refused_by_name(open_frontend, options, error):
    frontend, _, _ = open_frontend()
    sender = ask(frontend, **options).wait()
    assert str(sender.error).startswith(error) and not sender.sent
    assert ask(frontend).wait().error is None


def test_a_nul_is_a_character_like_any_other(open_frontend, tokenizer):
    frontend, _, runner = open_frontend()
    assert ask(frontend, b"a\0b").wait().text() == expected(runner, tokenizer, "a\0b", 5)


def test_special_tokens_in_literal_spans_are_text(open_frontend):
    frontend, _, _ = open_frontend()
    assert ask(frontend, b"hi<|end|>").wait().sent[0][1] == 3
    assert ask(frontend, b"hi<|end|>", literal_spans=np.array([2, 9], np.int32)).wait().sent[0][1] == 9


def test_a_prompt_gets_no_second_bos_token(open_frontend):
    from tokenizers.processors import TemplateProcessing

    frontend, _, _ = open_frontend()
    tokenizer = frontend._prompt_tokenizer._tokenizer
    post_processor = tokenizer.post_processor
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    try:
        assert ask(frontend, b"hi").wait().sent[0][1] == 3
        assert ask(frontend, b"<s>hi").wait().sent[0][1] == 3
    finally:
        tokenizer.post_processor = post_processor


def disconnect(sender):
    """Simulate a disconnect, and wait for the last response."""
    sender.disconnected = True
    sender.wait()
    assert isinstance(sender.error, errors.Cancelled)


@pytest.mark.parametrize("stream", [True, False])
def test_a_disconnect_frees_the_slot(open_frontend, stream):
    frontend, engine, _ = open_frontend(max_rows=1, seconds=0.01)
    running, waiting = ask(frontend, stream=stream, max_tokens=900), ask(frontend, max_tokens=900)
    third = ask(frontend, max_tokens=3)
    wait_until(lambda: engine.stats.rows_waiting == 2)
    disconnect(waiting)
    assert not running.ended.is_set()
    disconnect(running)
    assert third.wait().error is None
    assert engine.stats.requests_cancelled == 2
    assert not frontend._active_requests


def test_a_disconnect_during_tokenisation_ends_the_request_before_the_engine(open_frontend, monkeypatch):
    frontend, engine, _ = open_frontend()
    encode, gate = frontend._prompt_tokenizer.encode, threading.Event()

    def gated_encode(document, is_cancelled, **options):
        assert gate.wait(60)
        return encode(document, is_cancelled, **options)

    monkeypatch.setattr(frontend._prompt_tokenizer, "encode", gated_encode)
    disconnect(ask(frontend, max_tokens=900))
    gate.set()
    ask(frontend, b"hi").wait()  # the same thread prepares it, after the first
    assert engine.stats.tokens_in == 2


def test_a_long_prompt_does_not_delay_a_short_one(open_frontend, monkeypatch):
    frontend, _, _ = open_frontend()
    encode, gate = frontend._prompt_tokenizer.encode, threading.Event()

    def gated_encode(document, is_cancelled, **options):
        assert len(document) < 20_000 or gate.wait(60)
        return encode(document, is_cancelled, **options)

    monkeypatch.setattr(frontend._prompt_tokenizer, "encode", gated_encode)
    long_prompts = [ask(frontend, b"word " * 200_000) for _ in range(3)]
    short_prompt = ask(frontend).wait()
    assert short_prompt.error is None and not any(sender.ended.is_set() for sender in long_prompts)
    gate.set()
    for sender in long_prompts:
        assert isinstance(sender.wait().error, errors.ContextLengthExceeded)


def test_too_many_requests_at_once_are_refused(open_frontend):
    frontend, _, _ = open_frontend(max_open=3)
    admitted = [ask(frontend, max_tokens=30, blocked=True) for _ in range(3)]
    assert isinstance(ask(frontend, max_tokens=30).wait().error, errors.Overloaded)
    for sender in admitted:
        sender.gate.set()
    assert all(sender.wait().error is None for sender in admitted)


def test_a_client_that_cannot_be_reached_does_not_stop_the_others(open_frontend):
    class UnreachableSender(RecordingSender):
        def send(self, answer, num_prompt_tokens, *, final):
            raise OSError("the client cannot be reached")

    frontend, _, _ = open_frontend()
    sender = UnreachableSender()
    for _ in range(4):
        frontend.add_request(Request(b"x", None, True, True, b'{"max_tokens": 4}'), sender)
    assert ask(frontend).wait().error is None and ask(frontend).wait().error is None


class LockWithIntruder:
    """A lock that calls `intrude` once, just before the sender thread acquires it."""

    def __init__(self, intrude):
        self._lock, self._intrude = threading.Lock(), intrude

    def __enter__(self):
        if threading.current_thread().name.startswith("response-sender") and self._intrude:
            intrude, self._intrude = self._intrude, None
            intrude()
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()


@pytest.mark.parametrize("last", [Delta(0, "b", 1, "stop"), GenerationFailed(errors.EngineFailed("It broke."))])
def test_a_last_event_that_arrives_while_the_one_before_is_sent_leaves_nothing_open(open_frontend, monkeypatch, last):
    frontend, engine, _ = open_frontend()
    submitted: list[Generation] = []
    monkeypatch.setattr(engine, "submit", submitted.append)
    sender = ask(frontend)
    wait_until(lambda: bool(submitted))
    (active,) = frontend._active_requests.values()
    active._collector._lock = LockWithIntruder(lambda: submitted[0].sink(last))
    submitted[0].sink(Delta(0, "a", 1))
    sender.wait()
    assert not frontend._active_requests and not frontend._cancellation._requests


def test_closing_fails_active_requests(open_frontend):
    frontend, _, _ = open_frontend(max_rows=1, seconds=0.01)
    senders = [ask(frontend, max_tokens=900) for _ in range(3)] + [ask(frontend, b"word " * 100_000)]
    frontend.close()
    assert all(sender.error is not None and sender.ended.is_set() for sender in senders)
    late = ask(frontend)
    assert isinstance(late.error, errors.EngineFailed)
