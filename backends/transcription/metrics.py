"""Names and descriptions of the backend's Triton metrics, by attribute of `Stats`."""

GAUGES = {
    "rows_active": ("transcription_rows_active", "Windows of sound that are being decoded"),
    "rows_waiting": ("transcription_rows_waiting", "Windows of sound that wait for a row"),
}
COUNTERS = {
    "requests_cancelled": ("transcription_requests_cancelled_total", "Requests cancelled by their clients"),
    "windows": ("transcription_windows_total", "Windows of sound encoded"),
    "audio_seconds": ("transcription_audio_seconds_total", "Seconds of sound in the encoded windows"),
    "runs": ("transcription_runs_total", "Steps of the decoder; several windows share one"),
    "tokens": ("transcription_tokens_total", "Tokens generated, rejected attempts included"),
    "retries": ("transcription_retries_total", "Windows decoded again at a higher temperature"),
}
