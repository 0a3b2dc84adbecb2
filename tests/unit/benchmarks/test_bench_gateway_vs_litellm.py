"""What the gateway is held to beside LiteLLM's proxy."""

from benchmarks.gateway_vs_litellm import CONCURRENCIES, OURS, THEIRS, ProxyLoad, tables


def loads(ours: float, theirs: float) -> dict[int, dict[str, ProxyLoad]]:
    ways = {OURS: ours, THEIRS: theirs}
    return {
        count: {name: ProxyLoad([rate] * 2, 1.0, 100, 50.0) for name, rate in ways.items()} for count in CONCURRENCIES
    }


def test_rates_are_held_to_a_bar_however_many_are_at_once() -> None:
    added = {count: {name: [(0.001, 0.002)] for name in (OURS, THEIRS)} for count in CONCURRENCIES}
    made = tables(loads(600, 100), loads(400, 100), added, {"litellm": "1"})
    bars = [bar for table in made for bar in table.thresholds]
    assert [bar.name for bar in bars] == [
        f"{rate} ÷ LiteLLM's proxy, {count} at once" for rate in ("requests/s", "tokens/s") for count in (1, 16, 64)
    ]
    assert [bar.met for bar in bars] == [True] * 3 + [False] * 3
    assert made[-1].details["installed"] == {"LiteLLM": {"litellm": "1"}}
