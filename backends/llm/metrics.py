"""Names and help texts of the engine's metrics, which Triton publishes with its own.

The keys are fields of `Stats` and its subclasses.
"""

from backends.llm.stats import Stats

MetricNames = dict[str, tuple[str, str]]

GAUGES: MetricNames = {
    "rows_active": ("llm_rows_active", "Sequences that have a slot"),
    "rows_waiting": ("llm_rows_waiting", "Sequences that wait for a slot"),
    "row_bytes": ("llm_row_bytes", "Bytes of the KV cache that the slots use"),
    "prefix_cache_bytes": ("llm_prefix_cache_bytes", "Bytes of the prefix cache"),
    "kv_cache_usage": ("llm_kv_cache_usage_ratio", "Share of the KV cache that is in use, from 0 to 1"),
}
COUNTERS: MetricNames = {
    "requests_cancelled": ("llm_requests_cancelled_total", "Requests cancelled by their clients"),
    "tokens_in": ("llm_tokens_in_total", "Prompt tokens prefilled"),
    "tokens_out": ("llm_tokens_out_total", "Tokens generated, hidden ones included"),
    "steps": ("llm_steps_total", "Decode steps"),
    "prefix_tokens_reused": (
        "llm_prefix_tokens_reused_total",
        "Prompt tokens copied from the prefix cache instead of prefilled",
    ),
    "preemptions": (
        "llm_preemptions_total",
        "Preemptions: sequences that lost their slot to older ones, and are recomputed",
    ),
}


def metric_names(stats: Stats) -> tuple[MetricNames, MetricNames]:
    """Return the gauges and the counters that an engine with these `stats` has."""
    gauges, counters = ({key: names[key] for key in names if hasattr(stats, key)} for names in (GAUGES, COUNTERS))
    return gauges, counters
