"""The scales and limits of upscaling models, by their parameters."""

import pytest

from gateway.model_card.upscaling_limits import UpscalingLimits, parse_upscaling


def test_parameters_are_parsed() -> None:
    limits = parse_upscaling({"scales": "[4, 2]", "max_pixels": "1000", "max_output_pixels": "8000"})
    assert limits == UpscalingLimits(scales=(2, 4), max_pixels=1000, max_output_pixels=8000)
    assert (limits.max_pixels_at(2), limits.max_pixels_at(4)) == (1000, 500)


def test_a_model_that_says_nothing_checks_itself() -> None:
    assert parse_upscaling({}) == UpscalingLimits()
    assert UpscalingLimits().max_pixels_at(4) is None
    assert UpscalingLimits(max_output_pixels=64).max_pixels_at(4) == 4


@pytest.mark.parametrize(
    "parameters",
    [
        {"scales": "4"},
        {"scales": "[]"},
        {"scales": "[1]"},
        {"scales": "[2.5]"},
        {"scales": "two"},
        {"max_pixels": "0"},
        {"max_output_pixels": "-4"},
    ],
)
def test_other_values_are_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        parse_upscaling(parameters)
