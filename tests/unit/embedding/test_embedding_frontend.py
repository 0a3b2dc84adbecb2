"""The embedding backend without Triton: batching, outcomes of requests, and refusals."""

import json
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends.embedding.batch_window import choose_batch_window
from backends.embedding.options import Options, read_options
from backends.embedding.request_frontend import EmbeddingFrontend, Request
from backends.embedding.scheduler import EmbeddingScheduler
from backends.embedding.tokenization import InputTokenizer
from backends.serving.errors import (
    Cancelled,
    ContextLengthExceeded,
    EngineFailed,
    GenerationError,
    InvalidValue,
    Overloaded,
    UnsupportedOption,
)
from tests.unit.embedding.conftest import OPTIONS, RecordingSender, ScriptedEncoder, wait_for


def test_batches_stay_within_their_bounds() -> None:
    chance = random.Random(1)
    for _ in range(500):
        lengths = sorted(chance.randint(1, 200) for _ in range(chance.randint(1, 40)))
        anchor = chance.randrange(len(lengths))
        start, stop = choose_batch_window(lengths, anchor, 512, 0.05)
        assert start <= anchor < stop
        run = lengths[start:stop]
        padded = len(run) * run[-1]
        assert len(run) == 1 or padded <= 512
        assert padded - sum(run) <= max(16, 0.05 * padded)


def test_batches_take_the_texts_nearest_in_length() -> None:
    assert choose_batch_window([5, 5, 5, 100], 0, 512, 0.05) == (0, 3)
    assert choose_batch_window([1, 98, 100, 400], 2, 512, 0.05) == (1, 3)
    assert choose_batch_window([600, 600], 0, 512, 0.05) == (0, 1)


def test_rows_come_back_in_the_order_of_the_inputs(ask: Callable[..., RecordingSender]) -> None:
    lists = [[7] * length for length in (9, 1, 12, 3, 2)]
    rows, counts = ask(*lists).outcome()
    assert rows[:, 1].tolist() == counts.tolist() == [9, 1, 12, 3, 2]


def test_waiting_requests_share_a_batch(
    ask: Callable[..., RecordingSender], encoder: ScriptedEncoder, scheduler: EmbeddingScheduler
) -> None:
    encoder.gate.clear()
    first = ask([1])
    assert encoder.begun.wait(10)
    others = [ask([number] * 5) for number in range(2, 6)]
    wait_for(lambda: scheduler.stats.texts_waiting == 4)
    encoder.gate.set()
    assert [int(sender.outcome()[0][0, 0]) for sender in (first, *others)] == [1, 2, 3, 4, 5]
    assert encoder.runs == [[1], [5, 5, 5, 5]]


def test_a_failed_batch_fails_only_its_requests(ask: Callable[..., RecordingSender]) -> None:
    with pytest.raises(EngineFailed, match="the network is broken"):
        ask([99, 1]).outcome()
    assert ask([5]).outcome()[0][0, 0] == 5


def test_a_disconnected_request_is_skipped(ask: Callable[..., RecordingSender], encoder: ScriptedEncoder) -> None:
    encoder.gate.clear()
    ask([1])
    assert encoder.begun.wait(10)
    leaver, stayer = ask([2] * 3, [2] * 7), ask([3] * 3)
    leaver.disconnected = True
    with pytest.raises(Cancelled):
        leaver.outcome()
    encoder.gate.set()
    assert stayer.outcome()[0][0, 0] == 3
    assert encoder.runs == [[1], [3]]


def test_a_full_queue_refuses(ask: Callable[..., RecordingSender], encoder: ScriptedEncoder) -> None:
    encoder.gate.clear()
    senders = [ask([1], [1], [1]) for _ in range(3)]
    with pytest.raises(Overloaded):
        ask([1]).outcome()
    encoder.gate.set()
    for sender in senders:
        sender.outcome()
    assert ask([1]).outcome()[1].tolist() == [1]


def test_closing_fails_all_requests(
    ask: Callable[..., RecordingSender],
    frontend: EmbeddingFrontend,
    encoder: ScriptedEncoder,
    scheduler: EmbeddingScheduler,
) -> None:
    encoder.gate.clear()
    running, waiting = ask([1]), ask([2] * 9)
    closing = threading.Thread(target=frontend.close)
    closing.start()
    while not ask([1]).answered.wait(0.01):  # until the front refuses requests
        pass
    wait_for(lambda: scheduler._closed)  # otherwise waiting texts may still be embedded
    encoder.gate.set()
    closing.join()
    assert running.answered.is_set()
    assert waiting.answered.wait(10)  # with vectors or an error
    with pytest.raises(EngineFailed, match="unloaded"):
        ask([1]).outcome()


@pytest.mark.parametrize(
    ("more", "error", "start"),
    [
        ({"dimensions": 3}, UnsupportedOption, "[unsupported_option:dimensions]"),
        ({"dimensions": 5}, InvalidValue, "[invalid_value:dimensions]"),
        ({"purpose": "query"}, InvalidValue, "[invalid_value:purpose]"),
        ({"texts": [b"a"]}, InvalidValue, "[invalid_value:text]"),
    ],
)
def test_what_is_refused(
    ask: Callable[..., RecordingSender], more: dict[str, object], error: type[GenerationError], start: str
) -> None:
    with pytest.raises(error) as refused:
        ask([1], **more).outcome()
    assert str(refused.value).startswith(start)


def test_a_shortened_vector_is_normalized(ask: Callable[..., RecordingSender]) -> None:
    rows, _ = ask([3] * 4, dimensions=2).outcome()
    assert rows.shape == (1, 2)
    assert rows[0].tolist() == pytest.approx([0.6, 0.8])


def test_prompts_and_length_limits(texts: InputTokenizer) -> None:
    plain, asked, told = (texts.encode([b"ab"], purpose)[0] for purpose in (None, "query", "document"))
    assert (len(plain), len(asked), len(told)) == (3, 5, 5)
    assert asked[1:3].tolist() != told[1:3].tolist()
    assert [len(tokens) for tokens in texts.encode(["é".encode(), b""])] == [3, 1]
    with pytest.raises(ContextLengthExceeded, match="Input 1 has 13 tokens; the model takes 12") as refused:
        texts.encode([b"a", b"b" * 12])
    assert refused.value.param == "text"
    assert len(texts.encode([b"b" * 500_000], max_tokens=12)[0]) == 12
    with pytest.raises(ContextLengthExceeded, match="at least"):
        texts.encode([b"b" * 500_000])
    with pytest.raises(InvalidValue, match="Input 1 is not UTF-8"):
        texts.encode([b"a", b"\xff"])
    with pytest.raises(InvalidValue, match="one of query, document"):
        texts.encode([b"a"], "search")


def test_inputs_are_cut_to_the_requested_tokens(texts: InputTokenizer) -> None:
    """Special tokens count, and are kept."""
    whole = [texts.encode([text])[0].tolist() for text in (b"abcdef", b"a")]
    assert [tokens.tolist() for tokens in texts.encode([b"abcdef", b"a"], max_tokens=4)] == [whole[0][:4], whole[1]]
    assert texts.encode([b"abcdef"], "query", max_tokens=3)[0].tolist() == texts.encode([b"q:abcdef"])[0][:3].tolist()
    with pytest.raises(InvalidValue, match="1 special tokens: this must be 2 at least, not 1") as refused:
        texts.encode([b"a"], max_tokens=1)
    assert refused.value.param == "truncate_prompt_tokens"
    ids = np.arange(1, 9, dtype=np.int32)
    assert [t.tolist() for t in texts.validate_token_ids(ids, np.array([5, 3], np.int32), max_tokens=4)] == [
        [1, 2, 3, 4],
        [6, 7, 8],
    ]


@pytest.mark.parametrize(
    ("model", "asked", "counts"),
    [
        (None, {}, None),
        (None, {"truncate": False}, None),
        (None, {"truncate": True}, [12, 3]),
        (None, {"truncate_prompt_tokens": -1}, [12, 3]),
        (None, {"truncate_prompt_tokens": 2}, [2, 2]),
        (None, {"truncate_prompt_tokens": 2, "truncate": False}, [2, 2]),
        (-1, {}, [12, 3]),
        (5, {}, [5, 3]),
        (5, {"truncate": False}, None),
        (5, {"truncate_prompt_tokens": -1}, [12, 3]),
    ],
)
def test_the_request_overrides_the_model_on_truncation(
    scheduler: EmbeddingScheduler,
    texts: InputTokenizer,
    model: int | None,
    asked: dict[str, Any],
    counts: list[int] | None,
) -> None:
    frontend = EmbeddingFrontend(scheduler, texts, replace(OPTIONS, truncate_prompt_tokens=model))
    sender = RecordingSender()
    ids, lengths = np.full(33, 7, np.int32), np.array([30, 3], np.int32)
    frontend.add_request(Request(token_ids=ids, token_counts=lengths, **asked), sender)
    if counts is None:
        with pytest.raises(ContextLengthExceeded, match="Input 0 has 30 tokens; the model takes 12"):
            sender.outcome()
    else:
        assert sender.outcome()[1].tolist() == counts
    frontend.close()


@pytest.mark.parametrize("tokens", [0, -2, 13])
def test_invalid_truncation_lengths_are_refused(ask: Callable[..., RecordingSender], tokens: int) -> None:
    with pytest.raises(InvalidValue, match="1 to 12 tokens") as refused:
        ask([1], truncate_prompt_tokens=tokens).outcome()
    assert refused.value.param == "truncate_prompt_tokens"


@pytest.mark.parametrize(
    ("ids", "counts", "param"),
    [
        ([1, 2], [1], "token_counts"),
        ([1], [-1, 2], "token_counts"),
        ([300], None, "token_ids"),
        ([], None, "token_ids"),
    ],
)
def test_invalid_token_ids_are_refused(
    texts: InputTokenizer, ids: list[int], counts: list[int] | None, param: str
) -> None:
    with pytest.raises(InvalidValue) as refused:
        texts.validate_token_ids(np.array(ids, np.int32), None if counts is None else np.array(counts, np.int32))
    assert refused.value.param == param


def test_parameters_are_read_or_refused_by_name() -> None:
    def read(**values: object) -> Options:
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        return read_options({key: {"string_value": text} for key, text in texts.items()})

    found = read(context_length=256, dimensions=384, normalized=True, matryoshka=[128], threads=2)
    assert (found.context_length, found.matryoshka, found.normalized, found.num_threads) == (256, (128,), True, 2)
    assert found.truncate_prompt_tokens is None
    assert read(context_length=256, dimensions=384, truncate_prompt_tokens=-1).truncate_prompt_tokens == -1
    for tokens in (0, -2, 257, True, "x"):
        with pytest.raises(ValueError, match="truncate_prompt_tokens"):
            read(context_length=256, dimensions=384, truncate_prompt_tokens=tokens)
    for wrong in ({"dimensions": 0}, {"matryoshka": "x"}, {"normalized": 1}, {"prompts": [1]}, {"engine": "tpu"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            read(**{"context_length": 256, "dimensions": 384} | wrong)
