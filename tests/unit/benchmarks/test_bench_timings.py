"""Percentiles and statistics of response timings."""

import pytest

from benchmarks.timings import ResponseTiming, compute_stats, medians, percentile


def answer(began: float, first: float, step: float, tokens: int, chunks: int) -> ResponseTiming:
    """Return a timing with `chunks` texts, the first after `first` seconds and the others `step` seconds apart."""
    return ResponseTiming(began, tuple(began + first + step * number for number in range(chunks)), tokens)


def test_percentiles_are_interpolated() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.5
    assert percentile([3.0, 1.0, 2.0], 0.99) == pytest.approx(2.98)
    assert percentile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_the_time_between_tokens_counts_every_token_of_a_text() -> None:
    # Nine tokens in three texts, 0.8 s from the first to the last.
    stats = compute_stats([answer(float(number), 0.5, 0.4, 9, 3) for number in range(4)], 0.0, 10.0)
    assert stats["between p50"] == pytest.approx(0.1)
    assert stats["first p50"] == pytest.approx(0.5)
    assert stats["latency p99"] == pytest.approx(1.3)


def test_the_rate_counts_whole_requests_between_their_ends() -> None:
    # One stream: a request of 10 tokens ends each second.
    timings = [answer(float(number), 0.1, 0.1, 10, 10) for number in range(20)]
    assert compute_stats(timings, 0.0, 20.0)["tokens/s"] == pytest.approx(10.0)
    # Two streams at once.
    assert compute_stats(timings + timings, 0.0, 20.0)["tokens/s"] == pytest.approx(20.0, rel=0.05)


def test_the_rate_of_streams_in_step_is_exact_when_drained() -> None:
    # Eight streams of 10 tokens in 4 s end at once. A rate by the ends alone is too high.
    timings = [answer(4.0 * wave, 0.2, 0.4, 10, 10) for wave in range(5) for _ in range(8)]
    assert compute_stats(timings, 4.0, 12.0)["tokens/s"] == pytest.approx(28.75)
    assert compute_stats(timings, 4.0, 12.0, drained=True)["tokens/s"] == pytest.approx(20.0)


def test_requests_that_end_in_the_warm_up_or_later_do_not_count() -> None:
    slow = [answer(float(number), 0.9, 0.0, 10, 1) for number in range(5)]
    fast = [answer(5.0 + number, 0.1, 0.0, 10, 1) for number in range(10)]
    late = [answer(15.0, 9.0, 0.0, 10, 1)]
    stats = compute_stats(slow + fast + late, 5.0, 11.0)
    assert stats["first p99"] == pytest.approx(0.1)


def test_too_few_requests_raise_an_error() -> None:
    with pytest.raises(ValueError, match="2 requests"):
        compute_stats([answer(0.0, 0.1, 0.1, 10, 10)] * 2, 0.0, 20.0)
    with pytest.raises(ValueError, match="0 requests"):
        compute_stats([], 0.0, 20.0)


def test_medians_are_over_the_rounds() -> None:
    assert medians([{"x": 2.0}, {"x": 3.0}]) == {"x": 2.5}
