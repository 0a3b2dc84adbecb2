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
    rng = random.Random(1)
    for _ in range(500):
        lengths = sorted(rng.randint(1, 200) for _ in range(rng.randint(1, 40)))
        anchor = rng.randrange(len(lengths))
        start, stop = choose_batch_window(lengths, anchor, 512, 0.05)
        assert start <= anchor < stop
        batch = lengths[start:stop]
        num_padded = len(batch) * batch[-1]
        assert len(batch) == 1 or num_padded <= 512
        assert num_padded - sum(batch) <= max(16, 0.05 * num_padded)


def test_batches_take_the_texts_nearest_in_length() -> None:
    assert choose_batch_window([5, 5, 5, 100], 0, 512, 0.05) == (0, 3)
    assert choose_batch_window([1, 98, 100, 400], 2, 512, 0.05) == (1, 3)
    assert choose_batch_window([600, 600], 0, 512, 0.05) == (0, 1)


def test_rows_come_back_in_the_order_of_the_inputs(ask: Callable[..., RecordingSender]) -> None:
    inputs = [[7] * length for length in (9, 1, 12, 3, 2)]
    rows, counts = ask(*inputs).outcome()
    assert rows[:, 1].tolist() == counts.tolist() == [9, 1, 12, 3, 2]


def test_waiting_requests_share_a_batch(
    ask: Callable[..., RecordingSender], encoder: ScriptedEncoder, scheduler: EmbeddingScheduler
) -> None:
    encoder.gate.clear()
    first = ask([1])
    assert encoder.begun.wait(60)
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
    assert encoder.begun.wait(60)
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
    while not ask([1]).answered.wait(0.01):  # until the frontend refuses requests
        pass
    wait_for(lambda: scheduler._closed)  # otherwise waiting texts may still be embedded
    encoder.gate.set()
    closing.join()
    assert running.answered.is_set()
    assert waiting.answered.wait(60)  # with vectors or an error
    with pytest.raises(EngineFailed, match="unloaded"):
        ask([1]).outcome()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dimensions": 3}, UnsupportedOption, "[unsupported_option:dimensions]"),
        ({"dimensions": 5}, InvalidValue, "[invalid_value:dimensions]"),
        ({"purpose": "query"}, InvalidValue, "[invalid_value:purpose]"),
        ({"texts": [b"a"]}, InvalidValue, "[invalid_value:text]"),
    ],
)
def test_invalid_options_are_refused_by_name(
    ask: Callable[..., RecordingSender], options: dict[str, object], error: type[GenerationError], message: str
) -> None:
    with pytest.raises(error) as refused:
        ask([1], **options).outcome()
    assert str(refused.value).startswith(message)


def test_a_shortened_vector_is_normalized(ask: Callable[..., RecordingSender]) -> None:
    rows, _ = ask([3] * 4, dimensions=2).outcome()
    assert rows.shape == (1, 2)
    assert rows[0].tolist() == pytest.approx([0.6, 0.8])


def test_texts_get_the_prompt_of_their_purpose_and_are_limited_in_length(input_tokenizer: InputTokenizer) -> None:
    encode = input_tokenizer.encode
    plain, query, document = (encode([b"ab"], purpose)[0] for purpose in (None, "query", "document"))
    assert (len(plain), len(query), len(document)) == (3, 5, 5)
    assert query[1:3].tolist() != document[1:3].tolist()
    assert [len(tokens) for tokens in input_tokenizer.encode(["é".encode(), b""])] == [3, 1]
    with pytest.raises(ContextLengthExceeded, match="Input 1 has 13 tokens; the model takes 12") as refused:
        input_tokenizer.encode([b"a", b"b" * 12])
    assert refused.value.param == "text"
    assert len(input_tokenizer.encode([b"b" * 500_000], max_tokens=12)[0]) == 12
    with pytest.raises(ContextLengthExceeded, match="at least"):
        input_tokenizer.encode([b"b" * 500_000])
    with pytest.raises(InvalidValue, match="Input 1 is not UTF-8"):
        input_tokenizer.encode([b"a", b"\xff"])
    with pytest.raises(InvalidValue, match="one of query, document"):
        input_tokenizer.encode([b"a"], "search")


def test_inputs_are_cut_to_the_requested_tokens(input_tokenizer: InputTokenizer) -> None:
    """Special tokens count, and are kept."""
    long, short = (input_tokenizer.encode([text])[0].tolist() for text in (b"abcdef", b"a"))
    assert [tokens.tolist() for tokens in input_tokenizer.encode([b"abcdef", b"a"], max_tokens=4)] == [long[:4], short]
    assert (
        input_tokenizer.encode([b"abcdef"], "query", max_tokens=3)[0].tolist()
        == input_tokenizer.encode([b"q:abcdef"])[0][:3].tolist()
    )
    with pytest.raises(InvalidValue, match="1 special tokens: this must be 2 at least, not 1") as refused:
        input_tokenizer.encode([b"a"], max_tokens=1)
    assert refused.value.param == "truncate_prompt_tokens"
    ids = np.arange(1, 9, dtype=np.int32)
    cut = input_tokenizer.validate_token_ids(ids, np.array([5, 3], np.int32), max_tokens=4)
    assert [tokens.tolist() for tokens in cut] == [[1, 2, 3, 4], [6, 7, 8]]


@pytest.mark.parametrize(
    ("configured", "options", "counts"),
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
    input_tokenizer: InputTokenizer,
    configured: int | None,
    options: dict[str, Any],
    counts: list[int] | None,
) -> None:
    frontend = EmbeddingFrontend(scheduler, input_tokenizer, replace(OPTIONS, truncate_prompt_tokens=configured))
    sender = RecordingSender()
    ids, lengths = np.full(33, 7, np.int32), np.array([30, 3], np.int32)
    frontend.add_request(Request(token_ids=ids, token_counts=lengths, **options), sender)
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
    input_tokenizer: InputTokenizer, ids: list[int], counts: list[int] | None, param: str
) -> None:
    with pytest.raises(InvalidValue) as refused:
        input_tokenizer.validate_token_ids(
            np.array(ids, np.int32), None if counts is None else np.array(counts, np.int32)
        )
    assert refused.value.param == param


def test_parameters_are_read_or_refused_by_name() -> None:
    def read(**values: object) -> Options:
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        return read_options({key: {"string_value": text} for key, text in texts.items()})

    options = read(context_length=256, dimensions=384, normalized=True, matryoshka=[128], threads=2)
    assert (options.context_length, options.matryoshka, options.normalized, options.num_threads) == (
        256,
        (128,),
        True,
        2,
    )
    assert options.truncate_prompt_tokens is None
    assert read(context_length=256, dimensions=384, truncate_prompt_tokens=-1).truncate_prompt_tokens == -1
    for tokens in (0, -2, 257, True, "x"):
        with pytest.raises(ValueError, match="truncate_prompt_tokens"):
            read(context_length=256, dimensions=384, truncate_prompt_tokens=tokens)
    invalid: list[dict[str, object]] = [
        {"dimensions": 0},
        {"matryoshka": "x"},
        {"normalized": 1},
        {"prompts": [1]},
        {"engine": "tpu"},
    ]
    for parameter in invalid:
        with pytest.raises(ValueError, match=next(iter(parameter))):
            read(**{"context_length": 256, "dimensions": 384} | parameter)
