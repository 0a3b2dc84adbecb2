"""Upscaling networks in PyTorch, with the names that their published checkpoints have.

The architectures are those of Real-ESRGAN and BasicSR (Xintao Wang and others, BSD-3-Clause and Apache-2.0):
https://github.com/xinntao/Real-ESRGAN, https://github.com/XPixelGroup/BasicSR.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from builders.upscaling.architectures import Architecture, Compact, Rrdb

_SLOPE = 0.2
"""Slope of the leaky ReLU, and the weight of a residual."""


class CompactNetwork(nn.Module):  # type: ignore[misc]
    """`SRVGGNetCompact` with PReLU."""

    def __init__(self, shape: Compact) -> None:
        super().__init__()
        width, scale = shape.features, shape.scale
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1), nn.PReLU(width)]
        for _ in range(shape.convolutions):
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.PReLU(width)]
        self.body = nn.ModuleList([*layers, nn.Conv2d(width, 3 * scale * scale, 3, 1, 1)])
        self._scale = scale

    def forward(self, image: Tensor) -> Tensor:
        """Add what the convolutions find to the picture with its pixels repeated."""
        found = image
        for layer in self.body:
            found = layer(found)
        repeated = functional.interpolate(image, scale_factor=self._scale, mode="nearest")
        return functional.pixel_shuffle(found, self._scale) + repeated


class _DenseBlock(nn.Module):  # type: ignore[misc]
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for number in range(4):
            self.add_module(f"conv{number + 1}", nn.Conv2d(features + number * growth, growth, 3, 1, 1))
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        found = [image]
        for number in range(4):
            convolution = self.get_submodule(f"conv{number + 1}")
            found.append(functional.leaky_relu(convolution(torch.cat(found, 1)), _SLOPE))
        return self.conv5(torch.cat(found, 1)) * _SLOPE + image


class _ResidualBlock(nn.Module):  # type: ignore[misc]
    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = _DenseBlock(features, growth)
        self.rdb2 = _DenseBlock(features, growth)
        self.rdb3 = _DenseBlock(features, growth)

    def forward(self, image: Tensor) -> Tensor:
        return self.rdb3(self.rdb2(self.rdb1(image))) * _SLOPE + image


class RrdbNetwork(nn.Module):  # type: ignore[misc]
    """`RRDBNet` with a scale of 4."""

    def __init__(self, shape: Rrdb) -> None:
        super().__init__()
        width = shape.features
        self.conv_first = nn.Conv2d(3, width, 3, 1, 1)
        self.body = nn.Sequential(*(_ResidualBlock(width, shape.growth) for _ in range(shape.blocks)))
        self.conv_body = nn.Conv2d(width, width, 3, 1, 1)
        self.conv_up1 = nn.Conv2d(width, width, 3, 1, 1)
        self.conv_up2 = nn.Conv2d(width, width, 3, 1, 1)
        self.conv_hr = nn.Conv2d(width, width, 3, 1, 1)
        self.conv_last = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Find features at the size of the picture, enlarge them twice, and make colours of them."""
        found = self.conv_first(image)
        found = found + self.conv_body(self.body(found))
        for convolution in (self.conv_up1, self.conv_up2):
            found = functional.leaky_relu(
                convolution(functional.interpolate(found, scale_factor=2, mode="nearest")), _SLOPE
            )
        return self.conv_last(functional.leaky_relu(self.conv_hr(found), _SLOPE))


def load(architecture: Architecture, weights: Mapping[str, Any]) -> nn.Module:
    """Return the network with its weights, in fp32. Raises `RuntimeError` if their names or shapes differ."""
    network = CompactNetwork(architecture) if isinstance(architecture, Compact) else RrdbNetwork(architecture)
    network.load_state_dict(dict(weights))
    return network.float().eval()


class HalfNetwork(nn.Module):  # type: ignore[misc]
    """A network that computes in fp16, with pictures in fp32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, image: Tensor) -> Tensor:
        """Convert the picture, run the network, and convert back."""
        return self.network(image.half()).float()
