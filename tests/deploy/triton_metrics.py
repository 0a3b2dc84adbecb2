"""Names of the samples in Triton's exposition."""

SEEN = frozenset(
    {
        "diffusion_frames_total",
        "diffusion_images_total",
        "diffusion_requests_cancelled_total",
        "diffusion_rows_active",
        "diffusion_rows_waiting",
        "diffusion_runs_total",
        "diffusion_steps_total",
        "diffusion_videos_total",
        "embedding_padding_total",
        "embedding_requests_cancelled_total",
        "embedding_runs_total",
        "embedding_texts_total",
        "embedding_texts_waiting",
        "embedding_tokens_total",
        "llm_preemptions_total",
        "llm_prefix_cache_bytes",
        "llm_prefix_tokens_reused_total",
        "llm_requests_cancelled_total",
        "llm_row_bytes",
        "llm_rows_active",
        "llm_rows_waiting",
        "llm_steps_total",
        "llm_tokens_in_total",
        "llm_tokens_out_total",
        "nv_cpu_memory_total_bytes",
        "nv_cpu_memory_used_bytes",
        "nv_cpu_utilization",
        "nv_inference_compute_infer_duration_us",
        "nv_inference_compute_input_duration_us",
        "nv_inference_compute_output_duration_us",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_pending_request_count",
        "nv_inference_queue_duration_us",
        "nv_inference_request_duration_us",
        "nv_inference_request_failure",
        "nv_inference_request_success",
        "nv_pinned_memory_pool_total_bytes",
        "nv_pinned_memory_pool_used_bytes",
        "speech_frames_total",
        "speech_pieces_total",
        "speech_requests_cancelled_total",
        "speech_requests_speaking",
        "speech_requests_waiting",
        "speech_tokens_total",
        "transcription_audio_seconds_total",
        "transcription_requests_cancelled_total",
        "transcription_retries_total",
        "transcription_rows_active",
        "transcription_rows_waiting",
        "transcription_runs_total",
        "transcription_tokens_total",
        "transcription_windows_total",
    }
)
"""Of the embedded Triton 2.51 with the default models; `test_dashboards_on_prometheus.py` compares."""

WITH_A_GPU = frozenset(
    {
        "nv_energy_consumption",
        "nv_gpu_memory_total_bytes",
        "nv_gpu_memory_used_bytes",
        "nv_gpu_power_limit",
        "nv_gpu_power_usage",
        "nv_gpu_utilization",
    }
)
"""From Triton's documentation; no test has seen them."""

WITH_OTHER_ENGINES = frozenset({"llm_kv_cache_usage_ratio"})
"""Of language models whose engine is not the default one."""
