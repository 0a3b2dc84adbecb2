"""The noise generator, compared with torch's."""

import numpy as np
import pytest
import torch

from backends.diffusion.noise import NoiseGenerator

SEEDS = [0, 1, 42, 1234567, 2**31, 2**32 - 1, 2**32, 2**32 + 42, 0x9E3779B97F4A7C15, 2**64 - 1]
SHAPES = [(1,), (7,), (15,), (16,), (17,), (31,), (33,), (3, 5), (4, 16, 16), (4, 9, 13), (1, 4, 33, 31), (16, 64, 64)]

# Without AVX2 torch computes differently; see backends/diffusion/noise.py.
TOLERANCE = 0.0 if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else 3e-6


def drawn_by_torch(seed, shapes):
    generator = torch.Generator("cpu").manual_seed(seed)
    return [torch.randn(shape, generator=generator).numpy() for shape in shapes]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_first_numbers_are_those_of_torch(seed, shape):
    (expected,) = drawn_by_torch(seed, [shape])
    drawn = NoiseGenerator(seed).normal(shape)
    assert drawn.dtype == np.float32
    assert drawn.shape == shape
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("seed", [3, 2**40 + 5])
def test_later_draws_go_on_where_earlier_ones_ended(seed):
    # An odd number of single draws leaves a spare number, which must survive draws in blocks.
    shapes = [(3,), (20,), (1,), (4, 8, 8), (5,), (2, 9), (0,), (1,), (100, 7)]
    noise = NoiseGenerator(seed)
    for shape, expected in zip(shapes, drawn_by_torch(seed, shapes), strict=True):
        np.testing.assert_allclose(noise.normal(shape), expected, rtol=0, atol=TOLERANCE)


def test_a_million_numbers_are_those_of_torch():
    (expected,) = drawn_by_torch(7, [(1_000_003,)])
    np.testing.assert_allclose(NoiseGenerator(7).normal((1_000_003,)), expected, rtol=0, atol=TOLERANCE)


def test_two_seeds_differ_and_one_repeats_itself():
    assert not np.array_equal(NoiseGenerator(1).normal((4, 8, 8)), NoiseGenerator(2).normal((4, 8, 8)))
    assert np.array_equal(NoiseGenerator(1).normal((4, 8, 8)), NoiseGenerator(1).normal((4, 8, 8)))
