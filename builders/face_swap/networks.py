"""The published networks that find faces, in PyTorch: MTCNN's three, and 68 landmarks.

MTCNN is "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks" (Zhang et al., 2016) with
the layers of facenet-pytorch (MIT). The landmark network is `face_landmark_68` of face-api (MIT): blocks of separable
convolutions with dense sums.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

LANDMARK_SIDE = 112
"""Side in pixels of the picture that the landmark network takes."""
_MEAN_COLOUR = (122.782, 117.001, 104.298)


class ProposalNetwork(nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """MTCNN's first network: a score and a box for each window of 12 pixels, at every second pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores [1, h, w] and shifts of the corners [1, 4, h, w] for a picture [1, 3, height, width]."""
        found = self.pool1(self.prelu1(self.conv1(image)))
        found = self.prelu3(self.conv3(self.prelu2(self.conv2(found))))
        return self.conv4_1(found).softmax(1)[:, 1], self.conv4_2(found)


class RefinementNetwork(nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """MTCNN's second network: a better score and box for windows of 24 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores [n] and shifts of the corners [n, 4] for windows [n, 3, 24, 24]."""
        found = self.pool1(self.prelu1(self.conv1(image)))
        found = self.prelu3(self.conv3(self.pool2(self.prelu2(self.conv2(found)))))
        found = self.prelu4(self.dense4(found.permute(0, 3, 2, 1).flatten(1)))
        return self.dense5_1(found).softmax(1)[:, 1], self.dense5_2(found)


class OutputNetwork(nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """MTCNN's third network: the last score and box for windows of 48 pixels, and five points."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores [n], shifts [n, 4] and points [n, 10] (five x, five y) for windows [n, 3, 48, 48]."""
        found = self.pool1(self.prelu1(self.conv1(image)))
        found = self.pool2(self.prelu2(self.conv2(found)))
        found = self.prelu4(self.conv4(self.pool3(self.prelu3(self.conv3(found)))))
        found = self.prelu5(self.dense5(found.permute(0, 3, 2, 1).flatten(1)))
        return self.dense6_1(found).softmax(1)[:, 1], self.dense6_2(found), self.dense6_3(found)


class LandmarkNetwork(nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """face-api's `face_landmark_68`: the 68 points of a face in a square picture."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """`weights` are named as face-api's manifest names them, with TensorFlow's order of dimensions."""
        super().__init__()
        for name, weight in weights.items():
            self.register_buffer(name.replace("/", "_"), weight)
        self.register_buffer("mean", torch.tensor(_MEAN_COLOUR)[None, :, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """Return points [n, 68, 2], x and y from 0 to 1, for pictures [n, 3, 112, 112] with colours from 0 to 255."""
        found = (image - self.get_buffer("mean")) / 255
        for number in range(4):
            found = self._block(found, f"dense{number}", first=number == 0)
        found = functional.avg_pool2d(found, 7, 2).flatten(1)
        return (found @ self.get_buffer("fc_weights") + self.get_buffer("fc_bias")).reshape(-1, 68, 2)

    def _block(self, found: Tensor, name: str, *, first: bool) -> Tensor:
        if first:
            kernel = self.get_buffer(f"{name}_conv0_filters").permute(3, 2, 0, 1)
            bias = self.get_buffer(f"{name}_conv0_bias")
            one = functional.relu(functional.conv2d(_pad(found, 2), kernel, bias, stride=2))
        else:
            one = functional.relu(self._separable(found, f"{name}_conv0", 2))
        two = self._separable(one, f"{name}_conv1", 1)
        three = self._separable(functional.relu(one + two), f"{name}_conv2", 1)
        four = self._separable(functional.relu(one + two + three), f"{name}_conv3", 1)
        return functional.relu(one + two + three + four)

    def _separable(self, found: Tensor, name: str, stride: int) -> Tensor:
        depthwise = self.get_buffer(f"{name}_depthwise_filter").permute(2, 3, 0, 1)
        pointwise = self.get_buffer(f"{name}_pointwise_filter").permute(3, 2, 0, 1)
        found = functional.conv2d(_pad(found, stride), depthwise, stride=stride, groups=depthwise.shape[0])
        return functional.conv2d(found, pointwise, self.get_buffer(f"{name}_bias"))


def _pad(found: Tensor, stride: int) -> Tensor:
    """Pad as TensorFlow does for `same` and a kernel of 3: an odd pixel goes to the right and to the bottom."""
    if stride == 1:
        return functional.pad(found, (1, 1, 1, 1))
    side = found.shape[-1]
    total = max((-(-side // 2) - 1) * 2 + 3 - side, 0)
    return functional.pad(found, (total // 2, total - total // 2) * 2)


def load_cascade(folder: Path) -> dict[str, nn.Module]:
    """Return MTCNN's networks by name, with the weights of `pnet.pt`, `rnet.pt` and `onet.pt` in `folder`."""
    networks: dict[str, nn.Module] = {"pnet": ProposalNetwork(), "rnet": RefinementNetwork(), "onet": OutputNetwork()}
    for name, network in networks.items():
        network.load_state_dict(torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True))
        network.eval()
    return networks


def load_landmarks(manifest: Path, weights: Path) -> LandmarkNetwork:
    """Return the landmark network with the weights of face-api's files. Raises `ValueError` if these do not match."""
    (group,) = json.loads(manifest.read_bytes())
    data, offset = weights.read_bytes(), 0
    found = {}
    for entry in group["weights"]:
        array, size = _read_weight(entry, data, offset)
        found[entry["name"]] = torch.from_numpy(array)
        offset += size
    if offset != len(data):
        raise ValueError(f"{weights.name} has {len(data)} bytes, and {manifest.name} describes {offset}")
    network = LandmarkNetwork(found)
    network.eval()
    return network


def _read_weight(entry: Mapping[str, Any], data: bytes, offset: int) -> tuple[Any, int]:
    """Return one tensor of TensorFlow.js as float32, and its size in bytes. Most are quantised to 8 bits."""
    count = int(np.prod(entry["shape"]))
    quantization = entry.get("quantization")
    kind = np.dtype(quantization["dtype"] if quantization else np.float32).newbyteorder("<")
    array = np.frombuffer(data, kind, count, offset).astype(np.float32)
    if quantization:
        array = array * np.float32(quantization["scale"]) + np.float32(quantization["min"])
    return array.reshape(entry["shape"]), count * kind.itemsize
