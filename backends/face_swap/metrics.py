"""Names and descriptions of the backend's Triton metrics, by attribute of `Stats`."""

GAUGES: dict[str, tuple[str, str]] = {}
COUNTERS = {
    "requests_cancelled": ("face_swap_requests_cancelled_total", "Requests cancelled by their clients"),
    "pictures": ("face_swap_pictures_total", "Pictures whose faces were swapped"),
    "faces": ("face_swap_faces_total", "Faces swapped"),
}
