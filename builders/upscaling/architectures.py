"""The architectures of upscaling networks, recognised by the names and shapes of their weights.

Both are published with Real-ESRGAN (https://github.com/xinntao/Real-ESRGAN, BSD-3-Clause): `RRDBNet` of ESRGAN and
`SRVGGNetCompact`. `networks.py` defines them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt

from builders.errors import UnsupportedModel

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each tensor of a checkpoint."""


@dataclass(frozen=True, slots=True)
class Compact:
    """`SRVGGNetCompact`: convolutions at the size of the picture, and one rearrangement of channels to pixels."""

    features: int
    convolutions: int
    """Convolutions between the first and the last."""
    scale: int
    tile = 256
    """Side of a tile in pixels, if a recipe names none."""

    @property
    def radius(self) -> int:
        """Radius of the receptive field, in pixels of the picture."""
        return self.convolutions + 2


@dataclass(frozen=True, slots=True)
class Rrdb:
    """`RRDBNet`: residual-in-residual dense blocks at the size of the picture, then two enlargements by 2."""

    features: int
    growth: int
    """Channels that each convolution of a dense block adds."""
    blocks: int
    scale = 4
    tile = 128

    @property
    def radius(self) -> int:
        """Radius of the receptive field, in pixels of the picture. What is far away has hardly any effect."""
        return 1 + 15 * self.blocks + 1 + 2


Architecture = Compact | Rrdb


def recognize(shapes: Shapes) -> Architecture:
    """Return the architecture of a checkpoint. Raises UnsupportedModel with the reason why there is none."""
    if "conv_first.weight" in shapes and "body.0.rdb1.conv1.weight" in shapes:
        return _rrdb(shapes)
    if "body.0.weight" in shapes and "body.1.weight" in shapes:
        return _compact(shapes)
    raise UnsupportedModel(
        "These weights are neither those of RRDBNet (conv_first, body.0.rdb1 …) nor those of SRVGGNetCompact with "
        "PReLU (body.0, body.1 …)."
    )


def _rrdb(shapes: Shapes) -> Rrdb:
    features, channels = shapes["conv_first.weight"][:2]
    if channels != 3:
        raise UnsupportedModel(
            f"The first layer of this RRDBNet takes {channels} channels, blocks of pixels: tiles would have to lie on "
            "their grid. Build a network that takes 3 channels, such as Real-ESRGAN x4plus, which upscales by 2 too."
        )
    blocks = len({name.split(".")[1] for name in shapes if name.startswith("body.")})
    return Rrdb(features, shapes["body.0.rdb1.conv1.weight"][0], blocks)


def _compact(shapes: Shapes) -> Compact:
    convolutions = sorted(
        (int(name.split(".")[1]) for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 4)
    )
    last = shapes[f"body.{convolutions[-1]}.weight"]
    features, channels = shapes["body.0.weight"][:2]
    scale = isqrt(last[0] // 3)
    if channels != 3 or last[0] != 3 * scale * scale or scale < 2:
        raise UnsupportedModel(
            f"This network makes {last[0]} channels of {channels}. It must take 3 channels, and make 3 for each pixel "
            "of a square of 2 x 2 or more."
        )
    return Compact(features, len(convolutions) - 2, scale)
