"""The target `onnx`: check what onnxruntime-genai's model builder supports, and run it."""

import ast
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builders import subprocess_step
from builders.checkpoint import nested_text_config
from builders.engine_targets import Device
from builders.errors import MissingDependency, UnsupportedModel
from builders.llm.recipe import LLMRecipe
from builders.progress import Progress
from builders.recipe import QUANTIZATIONS, Recipe

OTHER_TASK_ARCHITECTURES = {"WhisperForConditionalGeneration": "it transcribes speech"}
"""Architectures that the exporter accepts but that do not generate text from text, with the reason."""

CUDA_ONLY_ARCHITECTURES = ("PhiMoEForCausalLM",)
"""Architectures for which the exporter always writes CUDA engines."""

SUPPORTED_INPUTS = re.compile(r"input_ids|inputs_embeds|attention_mask|position_ids|past_key_values\.\d+\.(key|value)")
"""Inputs that our runtime feeds. An export with others, such as states of a state-space layer, cannot be run."""


def supported_architectures() -> list[str]:
    """Return the architectures that the installed exporter supports, parsed from its source: it exports no list.

    Raises MissingDependency.
    """
    return sorted(set(_dispatched()) - set(OTHER_TASK_ARCHITECTURES) - set(CUDA_ONLY_ARCHITECTURES))


def check(recipe: Recipe, config: dict[str, Any]) -> None:
    """Refuse what cannot be exported before any heavy work starts. Raises UnsupportedModel, MissingDependency."""
    known = supported_architectures()
    architecture = (config.get("architectures") or [None])[0]
    if architecture in OTHER_TASK_ARCHITECTURES:
        raise UnsupportedModel(
            f"{architecture} is not a text-generation model: {OTHER_TASK_ARCHITECTURES[architecture]}."
        )
    if architecture in CUDA_ONLY_ARCHITECTURES:
        raise UnsupportedModel(
            f"The ONNX exporter makes {architecture} for CUDA only, so a build cannot compare it with its source on a "
            "CPU. For a GPU choose vllm or llmapi."
        )
    if recipe.precision == "int4" and config.get("tie_word_embeddings"):
        quantization = recipe.quantization or QUANTIZATIONS["int4"]
        if not (quantization.symmetric or quantization.embedding_in_fp32):
            raise UnsupportedModel(
                "int4 with zero points cannot compress an embedding that is also the model's last matrix: the exporter "
                "writes a file that onnxruntime does not load. Set embedding_in_fp32 = true or symmetric = true."
            )
    if architecture not in known:
        raise UnsupportedModel(
            f"The architecture {architecture or '(none named in config.json)'} is not supported by the installed ONNX "
            f"exporter. Supported: {', '.join(known)}."
        )


def export(
    checkpoint: Path,
    recipe: Recipe,
    folder: Path,
    scratch: Path,
    progress: Progress,
    *,
    every_position: bool = False,
    vectors: bool = False,
) -> None:
    """Export a checkpoint into `folder`: `model.onnx`, its data, `genai_config.json` and the tokenizer's files.

    The engine computes the logits of the last position, or of all with `every_position`, which measurements need. With
    `vectors` its input is embedding vectors instead of token ids. Raises ExportFailed with the end of the exporter's
    output, and UnsupportedModel if the export has inputs that our runtime does not feed.
    """
    config = json.loads((checkpoint / "config.json").read_bytes())
    layers = int(nested_text_config(config).get("num_hidden_layers", 0))
    request = {
        "input": str(checkpoint),
        "output": str(folder),
        "precision": recipe.precision,
        "device": device_of(recipe),
        "cache": str(scratch / "exporter"),
        "options": exporter_options(recipe, every_position=every_position, vectors=vectors),
    }
    subprocess_step.run(
        "builders.llm.export_process:export",
        request,
        "The ONNX exporter",
        lambda line: _report(line, layers, progress),
        isolated=True,
    )
    _check_graph(folder, device_of(recipe))


def device_of(recipe: Recipe) -> Device:
    """Return the device that a recipe's engine is for."""
    return recipe.device if isinstance(recipe, LLMRecipe) else "cpu"


def exporter_options(recipe: Recipe, *, every_position: bool = False, vectors: bool = False) -> list[str]:
    """Return a recipe's options in the exporter's form, `KEY=VALUE`."""
    options = [f"prune_lm_head={str(not every_position).lower()}"]
    if vectors:
        options.append("exclude_embeds=true")
    if device_of(recipe) == "cuda":
        # The fused normalisation exists in CUDA alone: without it the same graph runs on a CPU, where it is verified.
        options.append("fuse_qk_norm_gqa=false")
    if recipe.precision in QUANTIZATIONS:
        quantization = recipe.quantization or QUANTIZATIONS[recipe.precision]
        options += [
            f"block_size={quantization.block_size}",
            f"accuracy_level={quantization.accuracy_level}",
            f"is_symmetric={str(quantization.symmetric).lower()}",
            f"algo_config={quantization.method}",
        ]
        if quantization.embedding_in_fp32:
            # If embedding and last layer share a matrix, the exporter compresses the embedding unless sharing is off.
            options += ["op_types_to_quantize=MatMul", "shared_embeddings=false"]
        if quantization.head_in_int8:
            options.append("matmul_mixed_precision=last_matmul:int8")
    return options


def _dispatched() -> Iterator[str]:
    """Yield every string that the exporter's `create_model` compares `config.architectures[0]` with."""
    package = importlib.util.find_spec("onnxruntime_genai")
    if package is None or package.origin is None:
        raise MissingDependency("onnxruntime-genai")
    source = Path(package.origin).parent / "models" / "builder.py"
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare) and ast.unparse(node.left) == "config.architectures[0]":
            for right in node.comparators:
                if isinstance(right, ast.Constant) and isinstance(right.value, str):
                    yield right.value


def _report(line: str, layers: int, progress: Progress) -> None:
    """Translate a line of the exporter's output into progress; `layers` is the number of layers."""
    if match := re.match(r"Reading layer (\d+)", line):
        done = int(match[1]) + 1
        progress.update(f"layer {done} of {layers}", 0.6 * done / max(layers, done))
    elif match := re.search(r"complete quantization of /model/layers\.(\d+)/", line):
        done = int(match[1]) + 1
        progress.update(f"compressing layer {done} of {layers}", 0.6 + 0.3 * done / max(layers, done))
    elif line.startswith("Saving ONNX model"):
        progress.update("compressing", 0.6)
    elif line.startswith("Saving GenAI config"):
        progress.update("writing", 0.95)


def _check_graph(folder: Path, device: Device) -> None:
    """Raise UnsupportedModel if our runtime cannot run the graph on the device."""
    import onnx

    graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
    foreign = [value.name for value in graph.input if not SUPPORTED_INPUTS.fullmatch(value.name)]
    if foreign:
        raise UnsupportedModel(
            f"The export of this architecture has inputs that no engine here feeds: {', '.join(foreign[:4])}."
        )
    if device == "cpu":
        return
    caches = {value.name for value in graph.input if value.name.startswith("past_key_values.")}
    types = {value.type.tensor_type.elem_type for value in graph.input if value.name in caches}
    readers = {node.op_type for node in graph.node if caches.intersection(node.input)}
    if readers != {"GroupQueryAttention"} or types != {onnx.TensorProto.FLOAT16}:
        raise UnsupportedModel(
            "The export of this architecture for CUDA has no grouped-query attention in float16, which keeps the KV "
            f"cache in place (it has {', '.join(sorted(readers)) or 'no attention'}): choose vllm or llmapi."
        )
