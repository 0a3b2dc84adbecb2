"""Names and descriptions of the backend's Triton metrics, by attribute of `Stats`."""

GAUGES = {"requests_waiting": ("upscaling_requests_waiting", "Requests with tiles that the network has not had")}
COUNTERS = {
    "requests_cancelled": ("upscaling_requests_cancelled_total", "Requests cancelled by their clients"),
    "runs": ("upscaling_runs_total", "Runs of the network"),
    "tiles": ("upscaling_tiles_total", "Tiles upscaled"),
}
