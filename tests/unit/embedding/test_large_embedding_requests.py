"""Requests of many megabytes: early refusal, early end on a disconnect, and no delay for small requests."""

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from backends.embedding.request_frontend import EmbeddingFrontend, Request
from backends.embedding.scheduler import EmbeddingJob, EmbeddingScheduler
from backends.embedding.tokenization import InputTokenizer
from backends.serving.errors import Cancelled, ContextLengthExceeded, EngineFailed
from tests.unit.embedding.conftest import OPTIONS, VOCABULARY, RecordingSender, ScriptedEncoder, wait_for


class CountingTokenizer:
    """A tokenizer that counts the characters that it tokenises."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.characters = 0

    def post_process(self, encoding: Any) -> Any:
        return self._tokenizer.post_process(encoding)

    def encode_batch_fast(self, texts: Sequence[str], **options: Any) -> Any:
        self.characters += sum(map(len, texts))
        return self._tokenizer.encode_batch_fast(texts, **options)


@pytest.fixture
def word_tokenizer() -> InputTokenizer:
    """A word tokenizer like BERT's, for which the bytes of a text give no lower bound on its tokens."""
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "[CLS]": 1, "a": 2, "bee": 3}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    return InputTokenizer(tokenizer, OPTIONS, VOCABULARY)


def count_characters(input_tokenizer: InputTokenizer) -> CountingTokenizer:
    counter = CountingTokenizer(input_tokenizer._tokenizer)
    input_tokenizer._tokenizer = counter  # type: ignore[assignment]
    return counter


def test_texts_that_are_too_long_are_refused_before_the_others_are_tokenised(word_tokenizer: InputTokenizer) -> None:
    counter = count_characters(word_tokenizer)
    with pytest.raises(ContextLengthExceeded, match="Input 3 has 20001 tokens"):
        word_tokenizer.encode([b"a", b"bee", b"a", *[b"bee a " * 10_000] * 500])
    assert counter.characters < 400_000


def test_a_text_with_too_many_bytes_is_not_tokenised_at_all(input_tokenizer: InputTokenizer) -> None:
    counter = count_characters(input_tokenizer)
    with pytest.raises(ContextLengthExceeded, match="Input 0 has at least"):
        input_tokenizer.encode([b"b" * 60_000] * 500)
    assert counter.characters == 0


def test_tokenisation_ends_on_a_disconnect(word_tokenizer: InputTokenizer) -> None:
    counter = count_characters(word_tokenizer)
    with pytest.raises(Cancelled):
        word_tokenizer.encode([b"bee a"] * 200_000, is_cancelled=lambda: counter.characters > 30_000)
    assert 30_000 < counter.characters < 60_000


def test_batches_give_the_tokens_of_one_call(word_tokenizer: InputTokenizer) -> None:
    documents = [b"a " * (number % 11) for number in range(20_000)]
    encoded = word_tokenizer.encode(documents)
    assert [len(tokens) for tokens in encoded] == [1 + number % 11 for number in range(20_000)]
    with pytest.raises(ContextLengthExceeded, match="Input 12345 has 13 tokens"):
        word_tokenizer.encode([*documents[:12_345], b"a " * 12, *documents])


@pytest.mark.parametrize("text", ["bee a " * 200_000, "bee" * 100_000, " " * 400_000 + "bee a", "Bee, a! " * 40_000])
def test_a_cut_text_begins_with_the_tokens_of_the_whole(word_tokenizer: InputTokenizer, text: str) -> None:
    truncating = Tokenizer.from_str(word_tokenizer._tokenizer.to_str())
    for max_tokens in (12, 5, 2):
        truncating.enable_truncation(max_tokens)
        (tokens,) = word_tokenizer.encode([text.encode()], max_tokens=max_tokens)
        assert tokens.tolist() == truncating.encode(text).ids


@pytest.mark.parametrize("length", [*range(1, 30), 8_000])
def test_the_cut_off_part_costs_nothing(word_tokenizer: InputTokenizer, length: int) -> None:
    """The library keeps the cut-off part in pieces of the remaining length: one for each token if that is 1."""
    for tokens in (2, 3, 12):
        whole = word_tokenizer._tokenizer.encode_batch_fast(["bee a " * length], add_special_tokens=False)[0]
        first_ids = whole.ids[: tokens - 1]
        truncated = word_tokenizer._truncate(whole, tokens)
        assert truncated.ids == [1, *first_ids]
        assert len(truncated.overflowing) <= 4


def test_a_text_is_tokenised_no_further_than_its_cut(word_tokenizer: InputTokenizer) -> None:
    counter = count_characters(word_tokenizer)
    word_tokenizer.encode([b"bee a " * 2_000_000], max_tokens=12)
    assert counter.characters < 200_000


def test_a_large_request_does_not_delay_small_ones(
    frontend: EmbeddingFrontend, input_tokenizer: InputTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, encode = threading.Event(), input_tokenizer.encode

    def gated_encode(documents: Sequence[bytes], *arguments: Any, **options: Any) -> Any:
        if len(documents[0]) > 1:
            assert gate.wait(60)
        return encode(documents, *arguments, **options)

    monkeypatch.setattr(input_tokenizer, "encode", gated_encode)
    large, small = RecordingSender(), RecordingSender()
    frontend.add_request(Request(texts=[b"b" * 70_000], truncate=True), large)
    frontend.add_request(Request(texts=[b"b"]), small)
    assert small.outcome()[1].tolist() == [2] and not large.answered.is_set()
    gate.set()
    assert large.outcome()[1].tolist() == [12]


def test_closing_ends_tokenisation(frontend: EmbeddingFrontend, word_tokenizer: InputTokenizer) -> None:
    counter = count_characters(word_tokenizer)
    frontend._tokenizer = word_tokenizer
    sender = RecordingSender()
    frontend.add_request(Request(texts=[b"bee a"] * 1_000_000), sender)
    wait_for(lambda: counter.characters > 0)
    frontend.close()
    with pytest.raises(EngineFailed, match="unloaded"):
        sender.outcome()
    assert counter.characters < 5_000_000


def test_small_jobs_overtake_large_ones_without_starving_them(
    scheduler: EmbeddingScheduler, encoder: ScriptedEncoder
) -> None:
    encoder.gate.clear()
    done: list[int] = []

    def submit(count: int, length: int) -> None:
        texts = [np.full(length, 7, np.int64)] * count
        scheduler.submit(EmbeddingJob(texts, lambda rows: done.append(length), lambda error: None))

    submit(1, 3)
    assert encoder.begun.wait(60)
    submit(100, 200)
    for length in (1, 10, 30, 50, 70, 90, 110):  # no two are similar enough to share a batch
        submit(100, length)
    encoder.gate.set()
    wait_for(lambda: len(done) == 9)
    assert done == [3, 1, 10, 30, 50, 70, 90, 110, 200]
    encoder.gate.clear()
    submit(100, 200)
    wait_for(lambda: encoder.runs[-1][0] == 200)
    submit(1000, 30)  # more tokens than the large one, which arrived first
    encoder.gate.set()
    wait_for(lambda: len(done) == 11)
    assert done[-2:] == [200, 30]


def test_queueing_many_texts_takes_little_processor_time(
    scheduler: EmbeddingScheduler, encoder: ScriptedEncoder
) -> None:
    encoder.gate.clear()
    tokens = [np.full(1 + number % 12, 7, np.int64) for number in range(60_000)]
    started = time.thread_time()
    job = EmbeddingJob(tokens, lambda rows: None, lambda error: None)
    scheduler.submit(job)
    assert time.thread_time() - started < 1
    scheduler.cancel(job)
    encoder.gate.set()
    scheduler.close()
