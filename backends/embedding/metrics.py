"""Names and descriptions of the backend's Triton metrics, by attribute of `Stats`."""

GAUGES = {"texts_waiting": ("embedding_texts_waiting", "Texts that wait for a run")}
COUNTERS = {
    "requests_cancelled": ("embedding_requests_cancelled_total", "Requests cancelled by their clients"),
    "runs": ("embedding_runs_total", "Runs of the network"),
    "texts": ("embedding_texts_total", "Texts embedded"),
    "tokens": ("embedding_tokens_total", "Tokens embedded, padding not counted"),
    "padding": ("embedding_padding_total", "Padding tokens computed"),
}
