"""Log probabilities: their values, which positions have them, and their JSON."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from backends.llm.batching.token_logprobs import compute_logprobs
from backends.llm.engine import Logprob
from backends.llm.logprobs_json import TokenBytes, render_logprobs

PROMPT = [10, 20, 30]
CHOSEN = 5 - np.log(np.exp(5) + 258)  # of the scripted logits: one 5 among 258 zeros
OTHER = -np.log(np.exp(5) + 258)


def entries(collector):
    return [entry for event in collector.events for entry in event.logprobs]


def test_logprobs_are_the_log_softmax_in_order_of_rank():
    row = (np.random.default_rng(1).standard_normal(1000) * 5).astype(np.float32)
    exact = row.astype(np.float64) - np.log(np.exp(row.astype(np.float64)).sum())
    order = np.argsort(-exact)
    token = int(order[30])
    chosen, *others = compute_logprobs(row, token, 20)
    assert (chosen.token, chosen.rank) == (token, 31)
    assert [(other.token, other.rank) for other in others] == [
        (int(id_), rank) for rank, id_ in enumerate(order[:20], 1)
    ]
    logprobs = [entry.logprob for entry in (chosen, *others) if entry.logprob is not None]
    assert np.allclose(logprobs, exact[[token, *order[:20]]], atol=1e-5)
    assert compute_logprobs(row, int(order[1]), 3)[0].rank == 2
    assert [entry.rank for entry in compute_logprobs(row, int(order[1]), 3)] == [2, 1, 3]
    assert len(compute_logprobs(row, token, 0)) == 1


def test_equal_logits_rank_by_token_id():
    row = np.zeros(1000, np.float32)
    assert [(entry.token, entry.rank) for entry in compute_logprobs(row, 2, 4)] == [(2, 3), (0, 1), (1, 2), (3, 4)]


def test_each_token_has_an_entry_from_the_unmodified_logits(scripted_engine, collect):
    engine, runner = scripted_engine()
    bias = ((runner.next_token(PROMPT), -100.0), (77, 50.0))
    collector = collect(engine, PROMPT, max_tokens=4, logprobs=2, logit_bias=bias, frequency_penalty=1.0).wait()
    logprobs = entries(collector)
    assert len(logprobs) == 4 and all(len(entry) == 3 for entry in logprobs)
    first = logprobs[0]
    assert (first[0].token, first[1].token, first[1].rank) == (77, runner.next_token(PROMPT), 1)
    assert np.allclose([first[0].logprob, first[1].logprob], [OTHER, CHOSEN], atol=1e-5)
    assert entries(collect(engine, PROMPT, max_tokens=4).wait()) == []


def test_stop_token_has_no_entry(scripted_engine, collect, monkeypatch):
    engine, runner = scripted_engine()
    monkeypatch.setattr(type(runner), "next_token", staticmethod(lambda tokens: 2 if len(tokens) == 6 else 40))
    collector = collect(engine, PROMPT, logprobs=0).wait()
    assert (collector.num_tokens, len(entries(collector))) == (4, 3)


@pytest.mark.parametrize("n", [1, 3])
def test_prompt_logprobs_come_first_with_answer_0(scripted_engine, collect, tokenizer, n):
    engine, runner = scripted_engine(chunk_size=2)
    prompt = [10, runner.next_token([10]), 30, 40]
    collector = collect(engine, prompt, max_tokens=5, prompt_logprobs=1, logprobs=0, n=n).wait()
    assert collector.texts == [tokenizer.decode(runner.expected_answer(prompt, 5))] * n
    first = [entry for event in collector.events if event.index == 0 for entry in event.logprobs]
    assert first[0] == (Logprob(10, None, None),) and [entry[0].token for entry in first[1:4]] == prompt[1:]
    assert np.allclose([entry[0].logprob for entry in first[1:4]], [CHOSEN, OTHER, OTHER], atol=1e-5)
    assert [len(entry) for entry in first[1:]] == [1, 2, 2, 1, 1, 1, 1, 1]
    others = [len(event.logprobs) for event in collector.events if event.index]
    assert others == [1] * 5 * (n - 1)
    assert collector.num_tokens == 5 * n


def test_prompt_logprobs_without_an_answer(scripted_engine, collect):
    engine, _ = scripted_engine()
    assert entries(collect(engine, [10], max_tokens=2, prompt_logprobs=0).wait()) == [(Logprob(10, None, None),)]
    collector = collect(engine, PROMPT, max_tokens=2, prompt_logprobs=0).wait()
    assert len(collector.events[0].logprobs) == 3 and not collector.events[1].logprobs


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("options", [{}, {"logprobs": 1}, {"logprobs": 0, "prompt_logprobs": 0}], ids=str)
def test_max_tokens_0_generates_nothing(scripted_engine, collect, n, options):
    engine, _ = scripted_engine(max_rows=2)
    collector = collect(engine, PROMPT, max_tokens=0, n=n, **options).wait()
    assert (collector.texts, collector.finish_reasons, collector.num_tokens) == ([""] * n, ["length"] * n, 0)
    logprobs = entries(collector)
    assert len(logprobs) == (len(PROMPT) if "prompt_logprobs" in options else 0)
    assert [entry and entry[0].token for entry in logprobs] == (list(PROMPT) if logprobs else [])
    assert engine.stats.tokens_out == 0


def test_json_has_the_form_of_the_vllm_backend(tokenizer):
    token_bytes = TokenBytes(tokenizer)
    first, second = tokenizer.encode("é").ids
    rendered = render_logprobs(
        [(Logprob(40, None, None),), (Logprob(first, -0.5, 2), Logprob(1, -0.25, 1))], token_bytes
    )
    text = token_bytes[40]
    assert json.loads(rendered) == [
        {"40": {"logprob": None, "rank": None, "decoded_token": text.decode(), "bytes": list(text)}},
        {
            str(first): {"logprob": -0.5, "rank": 2, "decoded_token": "\ufffd", "bytes": [0xC3]},
            "1": {"logprob": -0.25, "rank": 1, "decoded_token": "</s>", "bytes": list(b"</s>"), "special": True},
        },
    ]
    assert token_bytes[first] + token_bytes[second] == "é".encode()
    assert token_bytes[100_000] == b""


def test_every_byte_of_a_byte_level_vocabulary_is_decoded(tokenizer):
    token_bytes = TokenBytes(tokenizer)
    assert {token_bytes[token] for token in range(3, 259)} == {bytes([byte]) for byte in range(256)}


def test_bytes_of_sentencepiece_tokens():
    vocab = {"<unk>": 0, "<0x0A>": 1, "\u2581Paris": 2, "<0xE9>": 3, "é": 4, "<0xZZ": 5}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    token_bytes = TokenBytes(tokenizer)
    assert [token_bytes[token] for token in range(6)] == [b"<unk>", b"\n", b" Paris", b"\xe9", "é".encode(), b"<0xZZ"]
