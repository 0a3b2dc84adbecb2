"""Names and descriptions of the backend's Triton metrics, by attribute of `Stats`."""

GAUGES = {
    "requests_speaking": ("speech_requests_speaking", "Requests whose sentences take turns"),
    "requests_waiting": ("speech_requests_waiting", "Requests that wait for their first turn"),
}
COUNTERS = {
    "requests_cancelled": ("speech_requests_cancelled_total", "Requests cancelled by their clients"),
    "pieces": ("speech_pieces_total", "Runs of the network, each of a sentence or of a part of one"),
    "tokens": ("speech_tokens_total", "Phonemes spoken"),
    "frames": ("speech_frames_total", "Acoustic frames computed"),
}
