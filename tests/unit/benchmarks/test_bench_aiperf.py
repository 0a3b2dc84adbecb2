import json

import pytest

from benchmarks.aiperf import input_lines, read_records, table


def record(**about: object) -> str:
    """A line of AIPerf 0.13's export, with the members that are read, and figures of its own to check against."""
    return json.dumps(
        {
            "metadata": {"request_start_ns": 1_795_293_228_166_245_806, "was_cancelled": False, **about},
            "metrics": {
                "time_to_first_token": {"value": 400.0, "unit": "ms"},
                "inter_chunk_latency": {"value": [10.0, 0.0, 30.0], "unit": "ms"},
                "output_sequence_length": {"value": 5, "unit": "tokens"},
                "inter_token_latency": {"value": 10.0, "unit": "ms"},
                "request_latency": {"value": 440.0, "unit": "ms"},
            },
            "error": None,
        }
    )


def test_arrivals_are_the_first_time_and_the_gaps_added_up() -> None:
    (timing,) = read_records([record()])
    assert timing.tokens == 5
    passed = [1000 * (arrival - timing.began) for arrival in timing.arrivals]
    assert passed == pytest.approx([400.0, 410.0, 410.0, 440.0], abs=0.01)
    # AIPerf's own figures of the same request.
    assert 1000 * (timing.arrivals[-1] - timing.arrivals[0]) / (timing.tokens - 1) == pytest.approx(10.0, abs=0.01)


def test_a_request_that_failed_is_no_figure() -> None:
    with pytest.raises(RuntimeError, match="cancelled"):
        read_records([record(was_cancelled=True)])
    failed = json.loads(record()) | {"error": {"code": 429, "message": "full"}}
    with pytest.raises(RuntimeError, match="full"):
        read_records([json.dumps(failed)])


def test_prompts_are_a_line_each_whatever_they_hold() -> None:
    lines = input_lines(["one\ntwo", "ü\u2028 “quoted”"]).splitlines()
    assert [json.loads(line) for line in lines] == [{"text": "one\ntwo"}, {"text": "ü\u2028 “quoted”"}]


def test_each_row_has_the_median_of_the_rounds_ratios() -> None:
    names = ("first p50", "first p99", "between p50", "between p99", "latency p50", "latency p99")
    rest = dict.fromkeys(names, 0.5)
    rounds = [
        {"direct": {"tokens/s": 100.0, **rest}, "gateway": {"tokens/s": rate, **rest}} for rate in (90.0, 99.0, 110.0)
    ]
    made = table({16: rounds})
    assert made.rows[0][:5] == (16, "tokens/s", "100", "99", 0.99)
    assert made.rows[1][:5] == (16, "time to first token, p50, ms", "500.0", "500.0", 1.0)
    (bar,) = made.thresholds
    assert (bar.found, bar.wanted, bar.met) == (0.99, 0.97, True)
    assert "gateway ÷ direct" in made.markdown()
