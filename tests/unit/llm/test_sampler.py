"""The sampler: the distribution of its draws, penalties, and tokens that may not be drawn."""

import numpy as np
import pytest

from backends.llm.batching.penalties import Penalties
from backends.llm.batching.sampler import Sampler, _draw_index, _top_p_indices, top_k_indices
from backends.llm.sampling_params import SamplingParams
from backends.serving.errors import EngineFailed

VOCAB = 1000
PROMPT = np.array([1])


def logits(seed, vocab=VOCAB, scale=3.0):
    return (np.random.default_rng(seed).standard_normal(vocab) * scale).astype(np.float32)


def reference_support(row, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Return the token ids that may be drawn and their probabilities, computed in the slow and obvious way."""
    row = row.astype(np.float64) / temperature
    probabilities = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
    order = np.argsort(-probabilities, kind="stable").tolist()
    if top_k:
        order = order[:top_k]
    order = [token for token in order if probabilities[token] >= min_p * probabilities.max()]
    total, running, support = sum(probabilities[order]), 0.0, []
    for token in order:
        support.append(token)
        running += probabilities[token]
        if running >= top_p * total:
            break
    shares = probabilities[support] / probabilities[support].sum()
    return dict(zip(support, shares, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.3},
        {"top_k": 5},
        {"top_p": 0.6},
        {"top_p": 0},
        {"min_p": 0.05},
        {"top_k": 50, "top_p": 0.9},
        {"top_k": 20, "min_p": 0.1, "top_p": 0.8, "temperature": 1.7},
        {"top_k": 1},
        {"top_p": 1e-9},
        {"top_k": VOCAB * 2},
    ],
)
def test_draws_follow_the_distribution(options):
    row = logits(3)
    expected = reference_support(row, **options)
    sampler = Sampler(SamplingParams(seed=11, **options), 0, np.array([1]), VOCAB)
    draws = 4000
    drawn = np.bincount([sampler.sample(row.copy()) for _ in range(draws)], minlength=VOCAB)
    assert set(np.flatnonzero(drawn)) <= set(expected)
    likely = {token: share for token, share in expected.items() if share * draws >= 8}
    chi_square = sum((drawn[token] - share * draws) ** 2 / (share * draws) for token, share in likely.items())
    assert chi_square < len(likely) + 6 * np.sqrt(2 * len(likely))  # six standard deviations


def test_greedy_chooses_the_likeliest_token():
    sampler = Sampler(SamplingParams(temperature=0), 0, np.array([1]), VOCAB)
    assert [sampler.sample(logits(seed)) for seed in range(5)] == [int(logits(seed).argmax()) for seed in range(5)]


def test_a_tiny_temperature_is_greedy_and_does_not_overflow():
    sampler = Sampler(SamplingParams(temperature=1e-30), 0, np.array([1]), VOCAB)
    assert sampler.sample(logits(1, scale=1e4)) == int(logits(1, scale=1e4).argmax())


def test_seed_repeats_the_draws_and_answers_differ():
    def draw(seed, index):
        sampler = Sampler(SamplingParams(seed=seed), index, np.array([1]), VOCAB)
        return [sampler.sample(logits(step)) for step in range(20)]

    assert draw(5, 0) == draw(5, 0)
    assert draw(5, 1) == draw(6, 0) != draw(5, 0)
    assert draw(-1, 1) == draw(0, 0)
    assert draw(2**63 - 1, 0) != draw(-(2**63), 0)
    assert draw(None, 0) != draw(None, 0)


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_numbers_raise(temperature, value):
    row = logits(1)
    row[77] = value
    with pytest.raises(EngineFailed):
        Sampler(SamplingParams(temperature=temperature), 0, np.array([1]), VOCAB).sample(row)


def test_tokens_with_minus_infinity_are_never_drawn():
    row = np.full(VOCAB, -np.inf, np.float32)
    row[[4, 9]] = 1.0
    sampler = Sampler(SamplingParams(seed=1, top_p=0.9), 0, np.array([1]), VOCAB)
    assert {sampler.sample(row.copy()) for _ in range(50)} == {4, 9}


def reference_penalties(row, prompt, generated, repetition, presence, frequency):
    """Apply penalties as vLLM does: repetition over prompt and answer, then frequency, then presence."""
    row = row.astype(np.float64)
    for token in {*prompt, *generated}:
        row[token] = row[token] / repetition if row[token] > 0 else row[token] * repetition
    for token in set(generated):
        row[token] -= frequency * generated.count(token) + presence
    return row


@pytest.mark.parametrize(
    ("repetition", "presence", "frequency"),
    [(1.3, 0, 0), (0.7, 0, 0), (1, 0.9, 0), (1, -2, 0), (1, 0, 1.5), (1.2, 0.5, -0.4)],
)
def test_penalties_equal_the_reference(repetition, presence, frequency):
    rng = np.random.default_rng(2)
    prompt = rng.integers(0, VOCAB, 50)
    options = {"repetition_penalty": repetition, "presence_penalty": presence, "frequency_penalty": frequency}
    sampler = Sampler(SamplingParams(temperature=0, **options), 0, prompt, VOCAB)
    penalties = Penalties(SamplingParams(**options), prompt, VOCAB)
    generated: list[int] = []
    for step in range(150):  # more distinct tokens than the first array holds
        row = logits(step)
        expected = reference_penalties(row, prompt.tolist(), generated, repetition, presence, frequency)
        applied = row.copy()
        penalties.apply(applied)
        np.testing.assert_allclose(applied, expected, rtol=1e-5, atol=1e-5)
        token = sampler.sample(row)
        assert token == int(expected.argmax())
        generated.append(token)
        penalties.add_token(token)


def test_top_p_may_select_most_of_the_vocabulary():
    flat = np.ones(5000, np.float32)
    assert len(_top_p_indices(flat, 0.5)) == 2500
    steep = np.exp(-np.arange(5000) * 0.01).astype(np.float32)
    assert len(_top_p_indices(steep, 0.999999999)) > 1500


@pytest.mark.parametrize("count", [1, 2, 19, 20, 50, 400])
def test_top_k_indices_finds_the_largest(count):
    row = logits(4, 5000)
    assert top_k_indices(row, count).tolist() == sorted(np.argsort(-row)[:count].tolist())
    assert len(top_k_indices(np.zeros(5000, np.float32), count)) == count
    assert len(top_k_indices(np.full(5000, -np.inf, np.float32), count)) == count


@pytest.mark.parametrize("size", [1, 255, 256, 257, 5000])
def test_draw_index_agrees_with_the_running_sum(size):
    mass = np.random.default_rng(size).random(size).astype(np.float32)
    mass[size // 2 :: 3] = 0
    mass[0] = 0.5
    running = np.cumsum(mass, dtype=np.float64)
    for uniform in [0.0, 1 - 1e-16, *np.random.default_rng(1).random(200)]:
        index = _draw_index(mass, uniform)
        assert mass[index] > 0
        assert running[index] >= uniform * running[-1] - 1e-9
        assert index == 0 or running[index - 1] <= uniform * running[-1] + 1e-9


def test_logit_bias_applies_before_other_options():
    row = logits(1)
    best, other = (int(token) for token in np.argsort(-row)[:2])
    assert (
        Sampler(SamplingParams(temperature=0, logit_bias=((best, -100.0),)), 0, PROMPT, VOCAB).sample(row.copy())
        == other
    )
    forced = Sampler(SamplingParams(seed=1, top_k=1, logit_bias=((5, 100.0),)), 0, PROMPT, VOCAB)
    assert [forced.sample(row.copy()) for _ in range(5)] == [5] * 5


def test_stop_tokens_are_masked_for_min_tokens():
    row = logits(1)
    best, other = (int(token) for token in np.argsort(-row)[:2])
    sampler = Sampler(SamplingParams(temperature=0, min_tokens=2), 0, PROMPT, VOCAB, frozenset({best}))
    assert [sampler.sample(row.copy()) for _ in range(4)] == [other, other, best, best]


@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"top_k": 50}, {"top_p": 0.9}, {"min_p": 0.1}], ids=str)
def test_banned_tokens_are_never_chosen(options):
    banned = np.ones(VOCAB, np.bool_)
    banned[[3, 700]] = False
    sampler = Sampler(
        SamplingParams(**{"seed": 1, "frequency_penalty": 1.0} | options), 0, PROMPT, VOCAB, frozenset({3})
    )
    assert {sampler.sample(logits(seed), banned) for seed in range(60)} == {3, 700}
