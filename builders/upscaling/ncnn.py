"""Weights of upscaling networks in the format of ncnn: a graph in text (`.param`) and a file of numbers (`.bin`).

https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure. The layers are in the order of the published
architectures, so that their order tells their names.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from builders.errors import UnsupportedModel

_MAGIC = "7767517"
_HALF_TAG, _FLOAT_TAG = 0x01306B47, 0
"""The tag before the weights of a convolution: fp16, or fp32."""
_RRDB_TAIL = ("conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last")

Weights = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class _Layer:
    kind: str
    options: dict[str, str]


class _Numbers:
    """The file of numbers, read from its beginning."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def weights(self, count: int) -> npt.NDArray[np.float32]:
        """Read the weights of a convolution, which have a tag."""
        (tag,) = struct.unpack("<I", self._take(4))
        if tag == _HALF_TAG:
            half = np.frombuffer(self._take(2 * count), "<f2")
            self._take(-2 * count % 4)
            return half.astype(np.float32)
        if tag == _FLOAT_TAG:
            return self.floats(count)
        raise UnsupportedModel(f"The weights of a layer have the unknown format {tag:#x}; fp16 and fp32 are read.")

    def floats(self, count: int) -> npt.NDArray[np.float32]:
        """Read fp32 without a tag."""
        return np.frombuffer(self._take(4 * count), "<f4").astype(np.float32)

    def check_end(self) -> None:
        """Raise UnsupportedModel if numbers are left."""
        if self._at != len(self._data):
            raise UnsupportedModel(f"The file of weights has {len(self._data) - self._at} bytes too many.")

    def _take(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            raise UnsupportedModel("The file of weights is cut off.")
        self._at += count
        return part


def read(param: Path, numbers: Path) -> Weights:
    """Return the weights by the names of the published checkpoints. Raises UnsupportedModel for another network."""
    layers = list(_layers(param.read_text(encoding="utf-8")))
    file = _Numbers(numbers.read_bytes())
    kinds = {layer.kind for layer in layers}
    weights: Weights = {}
    names = _rrdb_names(layers) if "Concat" in kinds else _compact_names(layers)
    for name, layer in zip(names, (layer for layer in layers if layer.kind in ("Convolution", "PReLU")), strict=True):
        width = int(layer.options["0"])
        if layer.kind == "PReLU":
            weights[f"{name}.weight"] = file.floats(width)
            continue
        side = int(layer.options["1"])
        if side != 3 or layer.options.get("4") != "1" or layer.options.get("5") != "1":
            raise UnsupportedModel("A convolution is not 3 x 3 with a padding of 1 and a bias.")
        weights[f"{name}.weight"] = file.weights(int(layer.options["6"])).reshape(width, -1, side, side)
        weights[f"{name}.bias"] = file.floats(width)
    file.check_end()
    return weights


def _layers(text: str) -> Iterator[_Layer]:
    lines = text.splitlines()
    if not lines or lines[0].strip() != _MAGIC:
        raise UnsupportedModel("The graph is not one of ncnn.")
    for line in lines[2:]:
        words = line.split()
        if words:
            tensors = int(words[2]) + int(words[3])
            yield _Layer(words[0], dict(word.split("=", 1) for word in words[4 + tensors :]))


def _compact_names(layers: list[_Layer]) -> list[str]:
    """Return the names of an SRVGGNetCompact: convolutions and PReLU in turn."""
    found = [layer.kind for layer in layers if layer.kind in ("Convolution", "PReLU")]
    expected = ["Convolution", "PReLU"] * (len(found) // 2) + ["Convolution"]
    if found != expected or not any(layer.kind == "PixelShuffle" for layer in layers):
        raise UnsupportedModel("The layers of the graph are not those of SRVGGNetCompact.")
    return [f"body.{number}" for number in range(len(found))]


def _rrdb_names(layers: list[_Layer]) -> list[str]:
    """Return the names of an RRDBNet: dense blocks of five convolutions, three in each block."""
    convolutions = sum(layer.kind == "Convolution" for layer in layers)
    blocks, rest = divmod(convolutions - 1 - len(_RRDB_TAIL), 15)
    concatenations = sum(layer.kind == "Concat" for layer in layers)
    enlargements = sum(layer.kind == "Interp" for layer in layers)
    if rest or blocks < 1 or concatenations != 12 * blocks or enlargements != 2:
        raise UnsupportedModel("The layers of the graph are not those of RRDBNet with a scale of 4.")
    body = [
        f"body.{block}.rdb{dense}.conv{number}"
        for block in range(blocks)
        for dense in (1, 2, 3)
        for number in range(1, 6)
    ]
    return ["conv_first", *body, *_RRDB_TAIL]
