"""The flow matching scheduler, compared with diffusers' as the pipelines of SD 3 and Flux call it."""

import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from tests.unit.diffusion.reference_loop import assert_alike, diffusers_loop, half_mask, tritonic_loop

NAME = "FlowMatchEulerDiscreteScheduler"
SD3 = {"shift": 3.0}
SD35 = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "shift": 3.0}
SCHNELL = {"base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15, "shift": 1.0}
DEV = {**SCHNELL, "shift": 3.0, "use_dynamic_shifting": True}

CASES = [
    ("stable-diffusion-3", SD3, None),
    ("stable-diffusion-3", SD35, (1024, 1024)),
    ("stable-diffusion-3", {**SD3, "use_karras_sigmas": True}, None),
    ("stable-diffusion-3", {**SD3, "use_exponential_sigmas": True}, None),
    ("stable-diffusion-3", {**SD3, "stochastic_sampling": True}, None),
    ("flux", SCHNELL, (512, 512)),
    ("flux", DEV, (512, 768)),
    ("flux", DEV, (1360, 768)),
    ("flux", {**DEV, "time_shift_type": "linear"}, (1024, 1024)),
    ("flux", {**DEV, "shift_terminal": 0.1}, (1024, 1024)),
]


def options_for_diffusers(family, options, size, steps):
    """Return the options that diffusers' pipelines pass to `set_timesteps`."""
    arguments = {}
    if options.get("use_dynamic_shifting"):
        tokens = (size[0] // 8 // 2) * (size[1] // 8 // 2)
        arguments["mu"] = calculate_shift(tokens, 256, 4096, options["base_shift"], options["max_shift"])
    if family == "flux":
        arguments["sigmas"] = np.linspace(1.0, 1 / steps, steps)
    return arguments


def compare(case, steps, **edit):
    """Compare the loops of a case; `edit` holds the strength and the mask of an edit."""
    family, options, size = case
    reference = FlowMatchEulerDiscreteScheduler(**options)
    set_timesteps = options_for_diffusers(family, options, size, steps)
    assert_alike(
        tritonic_loop(NAME, options, steps, family=family, size=size, **edit),
        diffusers_loop(reference, steps, rounded_up=True, **set_timesteps, **edit),
    )


@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_text_to_image_loops_equal_those_of_diffusers(case, steps):
    if steps > 1 or "shift_terminal" not in case[1]:
        compare(case, steps)


def test_a_single_step_ignores_the_terminal_shift():
    # diffusers divides 0 by 0 here.
    plan, sample = tritonic_loop(NAME, {**SCHNELL, "shift_terminal": 0.1}, 1, family="flux")
    assert plan.timesteps.tolist() == [1000.0]
    assert np.isfinite(sample).all()


# 28 * 0.6 is 16.8: these pipelines take 17 steps; those of Stable Diffusion 1 would take 16.
@pytest.mark.parametrize(("steps", "strength"), [(28, 0.6), (10, 0.7), (4, 0.9), (20, 0.01)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_image_to_image_loops_equal_those_of_diffusers(case, steps, strength):
    compare(case, steps, strength=strength)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_inpainting_loops_equal_those_of_diffusers(case):
    compare(case, 9, strength=0.75, mask=half_mask())
