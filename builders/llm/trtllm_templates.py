"""Fill in the models of `inflight_batcher_llm`, a folder of NVIDIA's container, with their values.

Each `${name}` of a `config.pbtxt` gets a value, or is one of those that stay as they are: NVIDIA's models take a
parameter that is still `${name}` for one that is not set. Any other is an error, so that a newer container is noticed.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from builders import config_pbtxt
from builders.errors import SourceUnavailable

ENSEMBLE = "ensemble"
STEPS = ("preprocessing", "postprocessing", "tensorrt_llm", "tensorrt_llm_bls")
"""The other models. Their names are fixed: the Python code of `tensorrt_llm_bls` calls them by these."""

UNSET = frozenset(
    {
        "batch_scheduler_policy",
        "cross_kv_cache_fraction",
        "cuda_graph_cache_size",
        "cuda_graph_mode",
        "decoding_mode",
        "eagle_choices",
        "enable_context_fmha_fp32_acc",
        "enable_trt_overlap",
        "encoder_engine_dir",
        "encoder_model_path",
        "gpu_device_ids",
        "gpu_weights_percent",
        "guided_decoding_backend",
        "hf_model_path",
        "iter_stats_max_iterations",
        "kv_cache_host_memory_bytes",
        "kv_cache_onboard_blocks",
        "lookahead_ngram_size",
        "lookahead_verification_set_size",
        "lookahead_window_size",
        "lora_cache_gpu_memory_fraction",
        "lora_cache_host_memory_bytes",
        "lora_cache_max_adapter_size",
        "lora_cache_optimal_adapter_size",
        "lora_prefetch_dir",
        "max_attention_window_size",
        "max_num_images",
        "max_tokens_in_paged_kv_cache",
        "medusa_choices",
        "multi_block_mode",
        "multimodal_encoders_name",
        "multimodal_model_path",
        "normalize_log_probs",
        "num_nodes",
        "participant_ids",
        "request_stats_max_iterations",
        "sink_token_length",
        "speculative_decoding_fast_logits",
        "stats_check_period_ms",
        "tensorrt_llm_draft_model_name",
        "xgrammar_tokenizer_info_path",
    }
)
"""Placeholders of parameters that the runtime chooses itself."""

_PLACEHOLDER = re.compile(r"\$\{(\w*)\}")


def check(templates: Path) -> Path:
    """Return the folder with the models in the container's folder `templates`. Raises SourceUnavailable."""
    for folder in (templates, templates / "inflight_batcher_llm"):
        if all((folder / model / "config.pbtxt").is_file() for model in (ENSEMBLE, *STEPS)):
            return folder
    raise SourceUnavailable(
        f"{templates} is not the folder inflight_batcher_llm of NVIDIA's container: it lacks the config.pbtxt of one "
        f"of {', '.join((ENSEMBLE, *STEPS))}."
    )


def values(
    *, engine_folder: str, tokenizer_folder: str, max_rows: int, max_waiting: int, preprocessing_instances: int = 4
) -> dict[str, str]:
    """Return the value of each placeholder that gets one. Folders are paths as Triton sees them."""
    return {
        "triton_backend": "tensorrtllm",
        "triton_max_batch_size": str(max_rows),
        "decoupled_mode": "true",
        "max_queue_delay_microseconds": "0",
        "max_queue_size": str(max_waiting),
        "logits_datatype": "TYPE_FP32",
        "encoder_input_features_data_type": "TYPE_FP16",
        "prompt_embedding_table_data_type": "TYPE_FP16",
        "preprocessing_instance_count": str(preprocessing_instances),
        "postprocessing_instance_count": str(preprocessing_instances),
        "bls_instance_count": str(max_rows),  # each waits for one request
        "engine_dir": engine_folder,
        "tokenizer_dir": tokenizer_folder,
        "add_special_tokens": "true",
        "skip_special_tokens": "true",
        "accumulate_tokens": "true",  # else characters of several tokens are lost in streams
        "tensorrt_llm_model_name": "tensorrt_llm",
        "batching_strategy": "inflight_fused_batching",
        "max_beam_width": "1",
        "kv_cache_free_gpu_mem_fraction": "0.9",
        "enable_kv_cache_reuse": "true",
        "enable_chunked_context": "true",
        "exclude_input_in_output": "true",
        "cancellation_check_period_ms": "100",
    }


def fill(text: str, given: Mapping[str, str], file: Path) -> str:
    """Return the text of the template `file` with the values `given`.

    Raises SourceUnavailable, which names file and placeholder, if one is unknown, if one without a value is not a
    string by itself, and if the result is not a configuration of Triton.
    """

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name in given:
            return given[name]
        quoted = text[match.start() - 1 : match.start()] == '"' and text[match.end() : match.end() + 1] == '"'
        if name in UNSET and quoted:
            return match[0]
        reason = "has no value, and is no string" if name in UNSET else "is unknown"
        raise SourceUnavailable(f"{file}: the placeholder {match[0]} {reason}.")

    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    filled = _PLACEHOLDER.sub(replace, text)
    left = re.search(r"\$\{?\w*", _PLACEHOLDER.sub("", filled))
    if left is not None:
        raise SourceUnavailable(f"{file}: {left[0]!r} is left, which is no placeholder.")
    try:
        config_pbtxt.parse(filled)
    except Exception as error:  # protobuf's ParseError, which its stubs do not name
        raise SourceUnavailable(f"{file} is not a configuration of Triton once it is filled in: {error}") from error
    return filled + "\n"


def write_models(templates: Path, ensemble: Path, steps: Path, name: str, given: Mapping[str, str]) -> None:
    """Write the filled ensemble, named `name`, into the folder `ensemble`, and the others into folders of `steps`.

    Raises SourceUnavailable as `fill` does.
    """
    templates = check(templates)
    for model in (ENSEMBLE, *STEPS):
        folder = ensemble if model == ENSEMBLE else steps / model
        template = templates / model / "config.pbtxt"
        filled = fill(template.read_text(encoding="utf-8"), given, template)
        if model == ENSEMBLE:
            config = config_pbtxt.parse(filled)
            config.name = name
            filled = config_pbtxt.to_text(config)
        if (templates / model / "1").is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(templates / model / "1", folder / "1", ignore=ignored, dirs_exist_ok=True)
        (folder / "1").mkdir(parents=True, exist_ok=True)
        (folder / "config.pbtxt").write_text(filled, encoding="utf-8", newline="")
