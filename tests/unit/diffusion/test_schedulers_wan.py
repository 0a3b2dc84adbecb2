"""The schedulers of published Wan pipelines, compared with diffusers' as its Wan pipelines call them."""

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from tests.unit.diffusion.reference_loop import assert_alike, diffusers_loop, tritonic_loop

# The options of Wan-AI's files scheduler_config.json that are not the defaults of diffusers.
UNIPC = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "num_train_timesteps": 1000}
CASES = [
    (UniPCMultistepScheduler, {**UNIPC, "flow_shift": 3.0}),  # Wan 2.1 at 480p
    (UniPCMultistepScheduler, {**UNIPC, "flow_shift": 5.0}),  # Wan 2.1 at 720p, Wan 2.2
    (UniPCMultistepScheduler, {**UNIPC, "flow_shift": 8.0, "solver_order": 3}),
    (FlowMatchEulerDiscreteScheduler, {"shift": 3.0}),
    (FlowMatchEulerDiscreteScheduler, {"shift": 5.0}),
]


def compare(case, steps, **edit):
    kind, options = case
    assert_alike(
        tritonic_loop(kind.__name__, options, steps, family="wan", **edit),
        diffusers_loop(kind(**options), steps, **edit),
    )


@pytest.mark.parametrize("steps", [1, 4, 20, 50])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_text_to_video_loops_equal_those_of_diffusers(case, steps):
    compare(case, steps)


# 28 * 0.6 is 16.8: Wan's pipelines take 16 steps.
@pytest.mark.parametrize(("steps", "strength"), [(28, 0.6), (10, 0.7), (4, 0.9), (50, 0.8)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_video_to_video_loops_equal_those_of_diffusers(case, steps, strength):
    compare(case, steps, strength=strength)
