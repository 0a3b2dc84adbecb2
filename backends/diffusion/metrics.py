"""Names and descriptions of the backend's Triton metrics, by attribute of `Stats`."""

GAUGES = {
    "rows_active": ("diffusion_rows_active", "Images and videos that are being denoised"),
    "rows_waiting": ("diffusion_rows_waiting", "Images and videos that wait for a row"),
}
COUNTERS = {
    "requests_cancelled": ("diffusion_requests_cancelled_total", "Requests cancelled by their clients"),
    "runs": ("diffusion_runs_total", "Runs of the denoiser"),
    "steps": ("diffusion_steps_total", "Denoising steps of images and videos; several share a run"),
    "images": ("diffusion_images_total", "Images decoded, previews not counted"),
    "videos": ("diffusion_videos_total", "Videos encoded"),
    "frames": ("diffusion_frames_total", "Frames of videos decoded"),
}
