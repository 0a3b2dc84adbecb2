"""Options of schedulers: which are read, which are refused with which error, and the contract of plans."""

import numpy as np
import pytest

from backends.diffusion.noise import NoiseGenerator
from backends.diffusion.schedulers import make_scheduler
from backends.serving.errors import InvalidValue

# The config files of published checkpoints.
STABLE_DIFFUSION_1 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
STABLE_DIFFUSION_XL = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}


@pytest.mark.parametrize("config", [STABLE_DIFFUSION_1, STABLE_DIFFUSION_XL], ids=["1", "xl"])
def test_configs_of_published_checkpoints_are_read(config):
    assert len(make_scheduler(config).plan(20).timesteps) in (20, 21)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"class": "HeunDiscreteScheduler"}, "HeunDiscreteScheduler"),
        ({}, "None"),
        ({"class": "DDIMScheduler", "betaschedule": "linear"}, "betaschedule"),
        ({"class": "DDIMScheduler", "beta_schedule": "sigmoid"}, "beta_schedule = 'sigmoid'"),
        ({"class": "DDIMScheduler", "prediction_type": "flow"}, "prediction_type = 'flow'"),
        ({"class": "DDIMScheduler", "steps_offset": "1"}, "steps_offset = '1'; it may be an integer"),
        ({"class": "DDIMScheduler", "steps_offset": True}, "steps_offset"),
        ({"class": "DDIMScheduler", "clip_sample": 1}, "clip_sample = 1; it may be true or false"),
        ({"class": "DDIMScheduler", "beta_start": "small"}, "beta_start"),
        ({"class": "DDIMScheduler", "trained_betas": [0.1, "b"]}, "trained_betas"),
        ({"class": "DDIMScheduler", "trained_betas": [0.1, 0.2]}, "trained_betas has 2 numbers"),
        ({"class": "DDIMScheduler", "thresholding": True}, "thresholding"),
        (
            {"class": "DDIMScheduler", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
            "rescale_betas_zero_snr",
        ),
        ({"class": "PNDMScheduler"}, "skip_prk_steps"),
        ({"class": "EulerDiscreteScheduler", "use_beta_sigmas": True}, "use_beta_sigmas"),
        (
            {"class": "EulerDiscreteScheduler", "use_karras_sigmas": True, "use_exponential_sigmas": True},
            "use_karras_sigmas and use_exponential_sigmas",
        ),
        ({"class": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}, "algorithm_type = 'dpmsolver'"),
        ({"class": "DPMSolverMultistepScheduler", "solver_order": 4}, "solver_order = 4; it may be 1 or 2 or 3"),
        (
            {"class": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++", "solver_order": 3},
            "solver_order",
        ),
        ({"class": "UniPCMultistepScheduler", "lower_order_final": False}, "lower_order_final"),
        ({"class": "UniPCMultistepScheduler", "shift_terminal": 0.1}, "shift_terminal needs use_flow_sigmas"),
        ({"class": "UniPCMultistepScheduler", "solver_p": "DDIM"}, "solver_p = 'DDIM'; it may be null"),
        (
            {"class": "UniPCMultistepScheduler", "use_flow_sigmas": True, "use_karras_sigmas": True},
            "use_karras_sigmas and use_flow_sigmas",
        ),
        ({"class": "LCMScheduler", "original_inference_steps": 0}, "original_inference_steps"),
        ({"class": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "invert_sigmas"),
        (
            {"class": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "max_shift": None},
            "base_shift and max_shift",
        ),
    ],
)
def test_unsupported_options_are_named_in_the_error(config, named):
    with pytest.raises(ValueError) as caught:
        make_scheduler(config)
    assert named in str(caught.value)


def test_options_of_other_schedulers_are_ignored():
    plain = make_scheduler({"class": "DDIMScheduler"}).plan(5)
    other = make_scheduler({"class": "DDIMScheduler", "use_karras_sigmas": True, "shift": 3.0, "_anything": 1}).plan(5)
    assert np.array_equal(plain.timesteps, other.timesteps)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_out_of_range_are_refused(steps):
    with pytest.raises(InvalidValue) as caught:
        make_scheduler({"class": "DDIMScheduler"}).plan(steps)
    assert caught.value.param == "steps"


def test_an_offset_that_leaves_the_training_is_refused():
    scheduler = make_scheduler({"class": "DDIMScheduler", "steps_offset": 1})
    assert len(scheduler.plan(999).timesteps) == 999
    with pytest.raises(InvalidValue) as caught:
        scheduler.plan(1000)
    assert caught.value.param == "steps"


def test_lcm_takes_no_more_steps_than_it_was_distilled_with():
    with pytest.raises(InvalidValue) as caught:
        make_scheduler({"class": "LCMScheduler"}).plan(51)
    assert caught.value.param == "steps"


@pytest.mark.parametrize(("steps", "strength"), [(20, 0.0), (20, -0.5), (20, 1.1), (20, float("nan")), (10, 0.05)])
def test_strengths_that_leave_no_step_are_refused(steps, strength):
    with pytest.raises(InvalidValue) as caught:
        make_scheduler({"class": "DDIMScheduler"}).plan(steps, strength)
    assert caught.value.param == "strength"


@pytest.mark.parametrize("tenths", range(1, 11))
def test_a_float32_strength_counts_as_its_decimal_number(tenths):
    assert len(make_scheduler({"class": "DDIMScheduler"}).plan(10, float(np.float32(tenths / 10))).timesteps) == tenths


def test_a_shift_by_size_needs_the_size():
    scheduler = make_scheduler({"class": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}, "flux")
    with pytest.raises(ValueError, match="size"):
        scheduler.plan(4)
    small, large = scheduler.plan(4, size=(256, 256)), scheduler.plan(4, size=(1024, 1024))
    assert (large.timesteps[1:] > small.timesteps[1:]).all()


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_trailing_gives_as_many_timesteps_as_asked_for(name):
    scheduler = make_scheduler({"class": name, "timestep_spacing": "trailing"})
    for steps in range(1, 999, 7):
        plan = scheduler.plan(steps)
        assert len(plan.timesteps) == steps
        assert plan.timesteps.min() >= 0


def test_images_share_a_plan_and_keep_their_own_states():
    plan = make_scheduler({"class": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}).plan(6)

    def run(seed, states):
        noise = NoiseGenerator(seed)
        sample = noise.normal((4, 4, 4))
        for i in range(6):
            sample = plan.step(i, np.tanh(sample), sample, states, noise)
            yield sample

    alone = [list(run(seed, plan.begin()))[-1] for seed in (1, 2)]
    together = [list(pair) for pair in zip(*(run(seed, plan.begin()) for seed in (1, 2)), strict=True)][-1]
    for sample_alone, sample_together in zip(alone, together, strict=True):
        assert np.array_equal(sample_alone, sample_together)
