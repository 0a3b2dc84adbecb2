"""The thresholds of the comparison with LiteLLM's proxy."""

from benchmarks.gateway_vs_litellm import CONCURRENCIES, OURS, THEIRS, ProxyLoad, tables


def loads(ours: float, theirs: float) -> dict[int, dict[str, ProxyLoad]]:
    rates = {OURS: ours, THEIRS: theirs}
    return {
        count: {name: ProxyLoad([rate] * 2, 1.0, 100, 50.0) for name, rate in rates.items()} for count in CONCURRENCIES
    }


def test_the_rate_at_each_concurrency_has_a_threshold() -> None:
    added = {count: {name: [(0.001, 0.002)] for name in (OURS, THEIRS)} for count in CONCURRENCIES}
    result = tables(loads(600, 100), loads(400, 100), added, {"litellm": "1"})
    thresholds = [threshold for table in result for threshold in table.thresholds]
    assert [threshold.name for threshold in thresholds] == [
        f"{rate} ÷ LiteLLM's proxy, {count} at once" for rate in ("requests/s", "tokens/s") for count in (1, 16, 64)
    ]
    assert [threshold.met for threshold in thresholds] == [True] * 3 + [False] * 3
    assert result[-1].details["installed"] == {"LiteLLM": {"litellm": "1"}}
