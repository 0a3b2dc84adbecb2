"""Compare a quantised checkpoint with its source, layer by layer after dequantising, and its rotary embedding.

Methods that smooth activations (AWQ, SmoothQuant) multiply the inputs of a layer by `pre_quant_scale` and divide its
columns by it; where a norm precedes the layer, ModelOpt multiplies the norm's weight instead. So the columns of the
source's matrix are divided by both before the two are compared: rounding errors are even in the smoothed matrix.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builders.checkpoint import nested_text_config
from builders.errors import VerificationFailed
from builders.llm.quantization.dequantize import dequantized, stored_format
from builders.llm.quantization.tensors import FloatArray, StoredTensor, stored_tensors
from builders.llm.targets import CheckpointQuantization

STORED_FORMATS: dict[CheckpointQuantization, str] = {
    "fp8": "fp8",
    "nvfp4": "nvfp4",
    "int4_awq": "int4",
    "w4a8_awq": "int4",
    "int8_sq": "int8",
}
"""The format in which each quantisation stores weights."""

BOUNDS = {"fp8": 0.05, "nvfp4": 0.15, "int4": 0.25, "int8": 0.03}
"""Largest norm of a matrix's error, relative to the norm of the matrix. Normally distributed weights have 0.026, 0.095,
0.12 (in groups of 128) and 0.008; a wrong scale, transposition or order of the halves of a byte has 0.3 and more."""

UNCHANGED_BOUND = 0.01
"""The same of a tensor that is not quantised, which may have been rounded to BF16 once more."""

_LAYER = re.compile(r"(.*\blayers\.\d+)\.")
_AFTER_FIRST_NORM = re.compile(r"self_attn\.(q|k|v|qkv)_proj\.weight")
_AFTER_SECOND_NORM = re.compile(r"mlp\.(experts\.\d+\.)?(gate|up|gate_up)_proj\.weight")
SECOND_NORMS = ("pre_feedforward_layernorm", "post_attention_layernorm")
"""Names of the norm before the second half of a layer; the first that a layer has is the one."""


@dataclass(frozen=True, slots=True)
class LayerErrors:
    """Distance of a quantised checkpoint from its source."""

    quantized: int
    """Number of quantised matrices."""
    worst: float
    """Largest relative error of one of them."""
    worst_tensor: str
    mean: float
    """Mean of their relative errors."""


def compare_checkpoints(
    source: Path,
    quantized: Path,
    kind: CheckpointQuantization,
    *,
    model_type: str = "",
    on_tensor: Callable[[int, int], object] = lambda done, all: None,
) -> LayerErrors:
    """Compare every tensor of the folder `source` with that of the same name in `quantized`.

    `on_tensor` is called with the number of the tensors that are done and of all. Raises VerificationFailed if a tensor
    is missing, has another shape or format, or is too far from its source, or if a layer has no quantised matrix.
    """
    theirs, ours = stored_tensors(source), stored_tensors(quantized)
    columns = _ColumnFactors(theirs, ours, one_is_added=model_type.startswith("gemma"))
    smoothed = columns.norms()
    errors: dict[str, float] = {}
    for number, (name, tensor) in enumerate(theirs.items()):
        on_tensor(number, len(theirs))
        if name not in ours:
            if name == "lm_head.weight":  # shared with the embedding
                continue
            raise VerificationFailed(f"The quantized checkpoint lacks {name}, so nothing was installed.")
        if name in smoothed:
            continue
        form = stored_format(ours, name)
        matrix = dequantized(ours, name)
        if matrix.shape != tensor.shape:
            raise VerificationFailed(f"{name} has the shape {matrix.shape}, in its source {tensor.shape}.")
        if form is not None and form != STORED_FORMATS[kind]:
            raise VerificationFailed(f"{name} is stored as {form}, and {kind} stores {STORED_FORMATS[kind]}.")
        error = relative_error(matrix, columns.smooth(name, tensor.read()))
        bound = BOUNDS[form] if form is not None else UNCHANGED_BOUND
        if not error <= bound:
            raise VerificationFailed(
                f"{name} is {error:.3g} of its norm away from its source (at most {bound:g} for "
                f"{form or 'tensors that are not quantized'}), so nothing was installed."
            )
        if form is not None:
            errors[name] = error
    _require_all_layers(theirs, errors)
    worst = max(errors, key=errors.__getitem__)
    return LayerErrors(len(errors), errors[worst], worst, float(np.mean(list(errors.values()))))


def relative_error(values: FloatArray, reference: FloatArray) -> float:
    """Return the norm of the difference over the norm of the reference; the former alone if the latter is zero."""
    norm = float(np.linalg.norm(reference))
    return float(np.linalg.norm(values - reference)) / (norm or 1.0)


def rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rotary embedding that a `config.json` describes, in one form.

    transformers 4 writes `rope_theta` and `rope_scaling`, transformers 5 `rope_parameters`, by kinds of layers in some
    models. An absent theta is 10000, an absent scaling is none.
    """
    text = nested_text_config(dict(config))
    by_version_5 = text.get("rope_parameters")
    if isinstance(by_version_5, dict) and any(isinstance(value, dict) for value in by_version_5.values()):
        return {kind: _one_rope(value) for kind, value in by_version_5.items() if isinstance(value, dict)}
    scaling = by_version_5 or text.get("rope_scaling") or {}
    return _one_rope({"rope_theta": text.get("rope_theta"), **scaling})


def check_rope(source: Mapping[str, Any], quantized: Mapping[str, Any]) -> None:
    """Raise VerificationFailed if a quantised checkpoint's config describes another rotary embedding than its source.

    Such a model loads without a word, and answers nonsense after a few thousand tokens.
    """
    expected, found = rope_parameters(source), rope_parameters(quantized)
    if expected != found:
        raise VerificationFailed(
            f"The rotary embedding was lost: the source has {expected}, the quantized checkpoint {found}, so nothing "
            "was installed. ModelOpt 0.47 needs transformers 4.57.3."
        )


def _one_rope(values: Mapping[str, Any]) -> dict[str, Any]:
    known = {"rope_type" if name == "type" else name: value for name, value in values.items() if value is not None}
    known = {"rope_theta": 10000.0, "rope_type": "default"} | known
    return {name: float(value) if isinstance(value, int) else value for name, value in known.items()}


class _ColumnFactors:
    """The factors by which smoothing divided the columns of a matrix."""

    def __init__(
        self, source: Mapping[str, StoredTensor], quantized: Mapping[str, StoredTensor], *, one_is_added: bool
    ) -> None:
        """`one_is_added` says that the model multiplies by a norm's weight plus one."""
        self._source = source
        self._quantized = quantized
        self._offset = 1.0 if one_is_added else 0.0

    def norms(self) -> frozenset[str]:
        """Return the names of the norms into which factors may have been multiplied."""
        found = {self._norm_before(name) for name in self._source if self._is_smoothed(name)}
        return frozenset(name for name in found if name is not None)

    def smooth(self, name: str, matrix: FloatArray) -> FloatArray:
        """Return a matrix [outputs, inputs] of the source as it is after smoothing."""
        if matrix.ndim != 2:
            return matrix
        own = self._quantized.get(f"{name.removesuffix('.weight')}.pre_quant_scale")
        if own is not None:
            matrix = matrix / own.read().reshape(1, -1)
        norm = self._norm_before(name)
        if norm is None or norm not in self._quantized:
            return matrix
        before, after = self._source[norm].read() + self._offset, self._quantized[norm].read() + self._offset
        changed = ~np.isclose(before, after, rtol=UNCHANGED_BOUND) & (after != 0)
        factors: FloatArray = np.divide(before, after, out=np.ones_like(after), where=changed)
        return matrix * factors[None]

    def _is_smoothed(self, name: str) -> bool:
        return name in self._quantized and stored_format(self._quantized, name) in ("int4", "int8")

    def _norm_before(self, name: str) -> str | None:
        layer = _LAYER.match(name)
        if layer is None:
            return None
        rest = name[layer.end() :]
        if _AFTER_FIRST_NORM.fullmatch(rest):
            names: tuple[str, ...] = ("input_layernorm",)
        elif _AFTER_SECOND_NORM.fullmatch(rest):
            names = SECOND_NORMS
        else:
            return None
        known = (f"{layer[1]}.{norm}.weight" for norm in names)
        return next((norm for norm in known if norm in self._source), None)


def _require_all_layers(source: Mapping[str, StoredTensor], errors: Mapping[str, float]) -> None:
    layers = {match[1] for name in source if (match := _LAYER.match(name))}
    done = {match[1] for name in errors if (match := _LAYER.match(name))}
    if not layers or layers - done:
        left = ", ".join(sorted(layers - done)) or "the checkpoint"
        raise VerificationFailed(f"Nothing was quantized in {left}, so nothing was installed.")
