"""Requests for text from their tensors to their responses, with a recording sender."""

import json
import threading
import time
import weakref

import numpy as np
import pytest

from backends.llm.active_request import Request
from backends.llm.engine import Delta, GenerationFailed
from backends.llm.prompt_tokenizer import PromptTokenizer
from backends.llm.request_frontend import LLMFrontend
from backends.llm.structured_outputs.grammar_compiler import GrammarCompiler
from backends.serving import errors


class Client:
    """A response sender that records responses; `gone` simulates a disconnect."""

    def __init__(self):
        self.gone = False
        self.sent = []
        self.error = None
        self.ended = threading.Event()
        self.slow = 0.0
        self.threads = set()

    def is_cancelled(self):
        return self.gone

    def send(self, answer, num_prompt_tokens, *, final):
        assert not self.ended.is_set(), "a response after the last"
        self.threads.add(threading.current_thread().name)
        time.sleep(self.slow)
        self.sent.append((answer, num_prompt_tokens))
        if final:
            self.ended.set()

    def fail(self, error):
        assert not self.ended.is_set(), "a response after the last"
        self.error = error
        self.ended.set()

    def wait(self, seconds=30):
        assert self.ended.wait(seconds), "no last response"
        return self

    def text(self, index=0):
        return "".join(answer.texts[index] for answer, _ in self.sent)


@pytest.fixture
def open_frontend(scripted_engine, tokenizer):
    frontends = []

    def make(max_open=100, bos="<s>", **options):
        engine, forward = scripted_engine(**options)
        prompts = PromptTokenizer(
            tokenizer, bos=bos, vocab_size=engine.vocab_size, context_length=engine.context_length
        )
        grammars = GrammarCompiler(tokenizer, engine.vocab_size, frozenset({1, 2}))
        frontends.append(LLMFrontend(engine, prompts, max_open, grammars=grammars))
        return frontends[-1], engine, forward

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
    slow=0.0,
    images=(),
    literal_spans=None,
    summed=False,
    **sampling,
):
    client = Client()
    client.slow = slow
    options = json.dumps({"temperature": 0, "max_tokens": 5} | sampling).encode() if raw is None else raw
    frontend.add_request(
        Request(text, token_ids, stream, exclude_input, options, images, literal_spans, summed), client
    )
    return client


def expected(forward, tokenizer, text, count):
    return tokenizer.decode(forward.expected_answer(tokenizer.encode(text).ids, count))


def test_a_stream_and_a_whole_answer_have_the_same_text(open_frontend, tokenizer):
    frontend, _, forward = open_frontend()
    streamed, whole = ask(frontend, max_tokens=30).wait(), ask(frontend, max_tokens=30, stream=False).wait()
    assert streamed.text() == whole.text() == expected(forward, tokenizer, "hello", 30)
    assert len(whole.sent) == 1 <= len(streamed.sent)
    for client in (streamed, whole):
        assert client.sent[-1][0].finish_reasons == ("length",)
        assert sum(answer.num_tokens for answer, _ in client.sent) == 30
        assert {count for _, count in client.sent} == {5}
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
def test_the_default_answer_length(open_frontend, raw, count):
    """With the tensor, which the gateway sends, an answer may fill the context; otherwise it has 16 tokens."""
    frontend, engine, _ = open_frontend()
    client = ask(frontend, raw=raw, stream=False).wait()
    assert client.error is None
    assert client.sent[0][0].num_tokens == (count or engine.context_length - 5)
    assert client.sent[0][0].finish_reasons == ("length",)


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
def test_the_sum_of_log_probabilities(open_frontend, stream):
    """The sum is sent whether or not the log probabilities are."""
    frontend, _, _ = open_frontend()
    told = ask(frontend, stream=stream, max_tokens=6, logprobs=2, summed=True).wait()
    silent = ask(frontend, stream=stream, max_tokens=6, summed=True).wait()
    summands = [entry[0].logprob for answer, _ in told.sent for entry in answer.logprobs[0]]
    assert len(summands) == 6
    for client in (told, silent):
        assert client.sent[-1][0].cumulative_logprobs == (pytest.approx(sum(summands)),)
    assert {answer.logprobs for answer, _ in silent.sent} == {()}


def test_an_empty_text_is_the_token_that_begins_a_sequence(open_frontend, tokenizer):
    frontend, _, forward = open_frontend(bos="<s>")
    begins = tokenizer.token_to_id("<s>")
    client = ask(frontend, b"", exclude_input=False).wait()
    assert client.text() == tokenizer.decode(forward.expected_answer([begins], 5))
    assert {count for _, count in client.sent} == {1}
    frontend, _, _ = open_frontend(bos=None)
    assert str(ask(frontend, b"").wait().error).startswith("[invalid_value:text_input] The prompt is empty")


def test_the_inputs_are_freed_before_the_answer_ends(open_frontend):
    frontend, _, _ = open_frontend(seconds=0.002)
    tokens = np.full(400, 20, np.int32)
    asked = weakref.ref(tokens)
    client = ask(frontend, None, token_ids=tokens, max_tokens=500)
    del tokens
    while not client.sent:
        time.sleep(0.001)
    assert asked() is None and not client.ended.is_set()
    client.gone = True
    client.wait()


def test_waiting_deltas_share_a_response_in_order(open_frontend, tokenizer):
    frontend, _, forward = open_frontend()
    client = ask(frontend, max_tokens=200, slow=0.02).wait()
    assert client.text() == expected(forward, tokenizer, "hello", 200)
    assert len(client.sent) < 60
    assert len(client.threads) == 1 and "llm-engine" not in client.threads


def test_a_slow_client_does_not_delay_the_others(open_frontend):
    frontend, _, _ = open_frontend()
    slow = ask(frontend, max_tokens=300, slow=0.2)
    start = time.monotonic()
    ask(frontend, max_tokens=20).wait()  # the next key belongs to the other sender thread
    assert time.monotonic() - start < 0.2
    slow.gone = True
    slow.wait()


def test_several_answers(open_frontend, tokenizer):
    frontend, _, forward = open_frontend()
    whole = ask(frontend, stream=False, n=3, max_tokens=6).wait()
    (answer, _) = whole.sent[0]
    assert answer.texts == (expected(forward, tokenizer, "hello", 6),) * 3
    assert (answer.finish_reasons, answer.num_tokens) == (("length",) * 3, 18)
    streamed = ask(frontend, n=3, max_tokens=6).wait()
    assert [streamed.text(index) for index in range(3)] == list(answer.texts)


@pytest.mark.parametrize("stream", [True, False])
def test_the_prompt_before_the_answer(open_frontend, tokenizer, stream):
    frontend, _, forward = open_frontend()
    rest = expected(forward, tokenizer, "hello", 5)
    assert ask(frontend, stream=stream, exclude_input=False).wait().text() == "hello" + rest
    ids = np.array(tokenizer.encode("hello").ids, np.int32)
    client = ask(frontend, None, token_ids=ids, stream=stream, exclude_input=False).wait()
    assert client.text() == "hello" + rest


@pytest.mark.parametrize(
    ("request_", "error"),
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
def test_invalid_inputs_are_refused_by_name(open_frontend, request_, error):
    frontend, _, _ = open_frontend()
    client = ask(frontend, **request_).wait()
    assert str(client.error).startswith(error) and not client.sent
    assert ask(frontend).wait().error is None


def test_a_nul_is_a_character_like_any_other(open_frontend, tokenizer):
    frontend, _, forward = open_frontend()
    assert ask(frontend, b"a\0b").wait().text() == expected(forward, tokenizer, "a\0b", 5)


def test_special_tokens_in_spans_are_text(open_frontend):
    frontend, _, _ = open_frontend()
    assert ask(frontend, b"hi<|end|>").wait().sent[0][1] == 3
    assert ask(frontend, b"hi<|end|>", literal_spans=np.array([2, 9], np.int32)).wait().sent[0][1] == 9


def test_no_second_beginning_of_sequence(open_frontend):
    from tokenizers.processors import TemplateProcessing

    frontend, _, _ = open_frontend()
    tokenizer = frontend._prompt_tokenizer._tokenizer
    before = tokenizer.post_processor
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    try:
        assert ask(frontend, b"hi").wait().sent[0][1] == 3
        assert ask(frontend, b"<s>hi").wait().sent[0][1] == 3
    finally:
        tokenizer.post_processor = before


def gone(client):
    client.gone = True
    start = time.monotonic()
    client.wait(5)
    assert isinstance(client.error, errors.Cancelled)
    return time.monotonic() - start


@pytest.mark.parametrize("stream", [True, False])
def test_a_disconnect_frees_the_row(open_frontend, stream):
    frontend, engine, _ = open_frontend(max_rows=1, seconds=0.005)
    client, waiting = ask(frontend, stream=stream, max_tokens=900), ask(frontend, max_tokens=900)
    third = ask(frontend, max_tokens=3)
    while engine.stats.rows_waiting < 2:
        time.sleep(0.001)
    assert gone(waiting) < 0.2
    assert gone(client) < 0.2
    assert third.wait(2).error is None
    assert engine.stats.requests_cancelled == 2
    assert not frontend._active_requests


def test_a_disconnect_during_tokenisation(open_frontend, monkeypatch):
    frontend, engine, _ = open_frontend()
    encode = frontend._prompt_tokenizer.encode

    def slowly(document, is_cancelled, **more):
        time.sleep(0.3)
        return encode(document, is_cancelled, **more)

    monkeypatch.setattr(frontend._prompt_tokenizer, "encode", slowly)
    assert gone(ask(frontend, max_tokens=900)) < 0.2
    time.sleep(0.4)
    assert engine.stats.tokens_in == 0


def test_a_long_prompt_does_not_delay_a_short_one(open_frontend, monkeypatch):
    frontend, _, _ = open_frontend()
    encode, answered = frontend._prompt_tokenizer.encode, threading.Event()

    def slowly(document, is_cancelled, **more):
        assert len(document) < 20_000 or answered.wait(10)
        return encode(document, is_cancelled, **more)

    monkeypatch.setattr(frontend._prompt_tokenizer, "encode", slowly)
    longs = [ask(frontend, b"word " * 200_000) for _ in range(3)]
    short = ask(frontend).wait()
    assert short.error is None and not any(long.ended.is_set() for long in longs)
    answered.set()
    for long in longs:
        assert isinstance(long.wait().error, errors.ContextLengthExceeded)


def test_too_many_at_once_are_refused(open_frontend):
    frontend, _, _ = open_frontend(max_open=3, seconds=0.01)
    heard = [ask(frontend, max_tokens=30) for _ in range(4)]
    assert isinstance(heard[3].wait().error, errors.Overloaded)
    assert all(client.wait().error is None for client in heard[:3])


def test_a_client_that_cannot_be_reached_does_not_stop_the_others(open_frontend):
    frontend, _, _ = open_frontend()
    client = Client()
    client.send = lambda *args, **more: 1 / 0
    for _ in range(4):
        frontend.add_request(Request(b"x", None, True, True, b'{"max_tokens": 4}'), client)
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
    submitted = []
    monkeypatch.setattr(engine, "submit", submitted.append)
    client = ask(frontend)
    while not submitted:
        time.sleep(0.001)
    (active,) = frontend._active_requests.values()
    active._collector._lock = LockWithIntruder(lambda: submitted[0].sink(last))
    submitted[0].sink(Delta(0, "a", 1))
    client.wait()
    assert not frontend._active_requests and not frontend._cancellation._requests


def test_closing_fails_active_requests(open_frontend):
    frontend, _, _ = open_frontend(max_rows=1, seconds=0.01)
    heard = [ask(frontend, max_tokens=900) for _ in range(3)] + [ask(frontend, b"word " * 100_000)]
    frontend.close()
    assert all(client.error is not None and client.ended.is_set() for client in heard)
    late = ask(frontend)
    assert isinstance(late.error, errors.EngineFailed)
