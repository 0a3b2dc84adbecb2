"""Loading of the network from its version folder, on the device of the instance group."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backends.embedding.encoder import ComponentEncoder, Components, OrtEncoder
from backends.embedding.options import Options
from backends.embedding.scheduler import BatchLimits
from backends.serving.execution_providers import choose_providers

GPU_THREADS = 2
"""Scheduler threads of a network on a GPU: one batch computes while the next is made."""
GPU_BATCH_TOKENS = 16_384
"""Tokens of one batch on a GPU, padding included, unless the model sets another number."""


def load_encoder(
    folder: Path,
    config: Mapping[str, Any],
    options: Options,
    kind: str,
    device: str,
    components: Callable[[], Components],
) -> OrtEncoder | ComponentEncoder:
    """Return the network. `kind` (`CPU` or `GPU`) and `device` are those of the instance.

    Raises `FileNotFoundError`, `ValueError` with a sentence for people, or what onnxruntime raises.
    """
    if options.encoder is not None:
        return ComponentEncoder(components(), options.encoder, options.vocab_size)
    import onnxruntime

    if kind == "GPU":
        onnxruntime.preload_dlls()  # from NVIDIA's packages, where CUDA and cuDNN are not installed in the system
    return OrtEncoder(folder, choose_providers(config, kind, device, onnxruntime.get_available_providers()))


def runs_on_gpu(options: Options, kind: str) -> bool:
    """Return whether the network computes on a GPU."""
    return kind == "GPU" or options.encoder is not None


def num_threads(options: Options, kind: str) -> int:
    """Return the number of scheduler threads."""
    return options.threads or GPU_THREADS if runs_on_gpu(options, kind) else options.num_threads


def batch_limits(options: Options, kind: str) -> BatchLimits:
    """Return the sizes of the network's batches: small batches leave a GPU idle, and are split among cores alone."""
    defaults = BatchLimits()
    if runs_on_gpu(options, kind):
        tokens = options.max_batch_tokens or GPU_BATCH_TOKENS
        return BatchLimits(tokens, tokens, options.max_batch_texts)
    return BatchLimits(options.max_batch_tokens or defaults.max_tokens, defaults.min_tokens, options.max_batch_texts)
