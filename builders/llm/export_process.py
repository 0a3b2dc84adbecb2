"""Call onnxruntime-genai's model builder; runs in an isolated process, see `builders.subprocess_step`.

The model builder imports packages by names (`builders`, `quantization`) that are ours too. So this file imports nothing
of ours, and puts the model builder's folder first on `sys.path`.
"""

import importlib.util
import sys
from pathlib import Path


def export(input: str, output: str, precision: str, device: str, cache: str, options: list[str]) -> None:
    """Export the checkpoint in the folder `input` into the folder `output`; `cache` is a folder for scratch files.

    `options` are those of the model builder, written `KEY=VALUE`. Raises what the model builder raises.
    """
    package = importlib.util.find_spec("onnxruntime_genai")
    if package is None or package.origin is None:
        raise SystemExit("onnxruntime-genai is not installed")
    sys.path.insert(0, str(Path(package.origin).parent / "models"))
    from builder import create_model, parse_extra_options  # type: ignore[import-not-found]

    arguments = (None, input, output, precision, device, cache)
    parsed = parse_extra_options(*arguments, options)
    # Code that lies next to the weights is not run.
    create_model(*arguments, **{**parsed, "hf_remote": False})
