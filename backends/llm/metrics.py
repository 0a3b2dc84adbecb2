"""The engine's figures among Triton's own metrics."""

GAUGES = {
    "rows_active": ("llm_rows_active", "Sequences that have a row in the batch"),
    "rows_waiting": ("llm_rows_waiting", "Sequences that wait for a row"),
    "row_bytes": ("llm_row_bytes", "Memory of the keys and values of all rows"),
    "prefix_cache_bytes": ("llm_prefix_cache_bytes", "Memory of the keys and values kept of prompts"),
}
COUNTERS = {
    "requests_cancelled": ("llm_requests_cancelled_total", "Requests cancelled by their clients"),
    "tokens_in": ("llm_tokens_in_total", "Prompt tokens computed"),
    "tokens_out": ("llm_tokens_out_total", "Tokens generated, hidden ones included"),
    "steps": ("llm_steps_total", "Steps of the batch"),
    "prefix_tokens_reused": ("llm_prefix_tokens_reused_total", "Prompt tokens copied instead of computed"),
    "preemptions": ("llm_preemptions_total", "Sequences that lost their row to older ones, and began again"),
}
