"""Size limits of image models, parsed from their parameters."""

import json

import pytest

from gateway.model_card.card import parse_image
from gateway.model_card.image_limits import ImageLimits


def limits_of(**parameters: object) -> ImageLimits:
    return parse_image({name: json.dumps(value) for name, value in parameters.items()})


def test_only_listed_sizes_are_allowed() -> None:
    drawing = limits_of(sizes=[[128, 128], [192, 128]], default_size=[128, 128])
    assert drawing.supports_size(192, 128) and not drawing.supports_size(128, 192)
    assert drawing.describe_sizes() == "128x128, 192x128"


@pytest.mark.parametrize(
    ("parameters", "inside", "outside", "described"),
    [
        ({"size_multiple": 8}, [(8, 1024)], [(12, 8)], "sides that are multiples of 8"),
        ({"min_size": 64, "max_size": 128}, [(64, 128)], [(63, 64), (64, 129)], "from 64x64 up to 128x128"),
        (
            {"size_multiple": 16, "min_size": [64, 32], "max_size": [512, 256]},
            [(64, 32), (512, 256)],
            [(32, 32), (512, 512), (65, 64)],
            "from 64x32 up to 512x256; sides that are multiples of 16",
        ),
        ({}, [(1, 1)], [], "any size"),
    ],
)
def test_sizes_by_bounds(parameters: dict, inside: list, outside: list, described: str) -> None:
    drawing = limits_of(**parameters)
    assert all(drawing.supports_size(*size) for size in inside)
    assert not any(drawing.supports_size(*size) for size in outside)
    assert drawing.describe_sizes() == described


@pytest.mark.parametrize(
    "parameters",
    [
        {"sizes": [[128]]},
        {"sizes": [["128", "128"]]},
        {"sizes": [[0, 128]]},
        {"size_multiple": 0},
        {"default_steps": "many"},
        {"max_steps": 1.5},
        {"max_images": True},
        {"sizes": [[128, 128]], "default_size": [64, 64]},
    ],
    ids=str,
)
def test_invalid_size_parameters_are_refused(parameters: dict) -> None:
    with pytest.raises((ValueError, TypeError)):
        limits_of(**parameters)


@pytest.mark.parametrize(
    ("parameters", "requested", "nearest"),
    [
        ({"sizes": [[128, 128], [1024, 1024], [192, 128]]}, (512, 512), (1024, 1024)),
        ({"sizes": [[128, 128], [1024, 1024], [192, 128]]}, (200, 200), (128, 128)),
        ({"sizes": [[128, 128], [192, 128]]}, (1792, 1024), (192, 128)),
        ({"sizes": [[128, 128], [192, 128]]}, (100, 900), (128, 128)),
        ({"size_multiple": 8, "min_size": 60, "max_size": 250}, (50, 1000), (64, 248)),
        ({"size_multiple": 16}, (1000, 33), (992, 32)),
    ],
)
def test_the_nearest_size(parameters: dict, requested: tuple[int, int], nearest: tuple[int, int]) -> None:
    drawing = limits_of(**parameters)
    assert drawing.nearest_size(*requested) == nearest
    assert drawing.supports_size(*nearest)


def test_efforts() -> None:
    drawing = limits_of(default_steps=20, max_steps=30)
    assert [drawing.steps(effort) for effort in ("low", "medium", "high")] == [10, None, 30]
    assert limits_of(default_steps=1).steps("low") == 1
    assert limits_of().steps("high") is None
