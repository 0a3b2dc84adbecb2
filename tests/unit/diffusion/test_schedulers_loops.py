"""Whole denoising loops, compared with those of diffusers' schedulers, with and without added noise."""

from typing import Any

import diffusers
import pytest

from tests.unit.diffusion.reference_loop import assert_alike, diffusers_loop, half_mask, tritonic_loop

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = {**SD, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
SPACINGS: list[dict[str, Any]] = [
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace"},
]
PREDICTIONS = [{"prediction_type": "epsilon"}, {"prediction_type": "v_prediction"}]
SAMPLE = {"prediction_type": "sample"}

DDIM, PNDM, LCM = "DDIMScheduler", "PNDMScheduler", "LCMScheduler"
EULER, ANCESTRAL = "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"
DPM, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"

EACH = [DDIM, PNDM, EULER, ANCESTRAL, DPM, UNIPC]
# PNDM takes its Runge-Kutta steps unless an option skips them.
REQUIRED_OPTIONS: dict[str, dict[str, Any]] = {PNDM: {"skip_prk_steps": True}, DDIM: {"clip_sample": False}}

CASES: list[tuple[str, dict[str, Any]]] = [
    (name, {**SD, **REQUIRED_OPTIONS.get(name, {}), **s, **p}) for name in EACH for s in SPACINGS for p in PREDICTIONS
]
CASES += [(name, {**SD, **REQUIRED_OPTIONS.get(name, {}), **SAMPLE}) for name in (DDIM, EULER, DPM, LCM, UNIPC)]
CASES += [(name, {**REQUIRED_OPTIONS.get(name, {}), **ZERO_SNR}) for name in (DDIM, EULER, ANCESTRAL, DPM, UNIPC)]
CASES += [(name, {**REQUIRED_OPTIONS.get(name, {}), **COSINE}) for name in (DDIM, PNDM)]
CASES += [
    (DDIM, {**SD, "clip_sample": True, "set_alpha_to_one": False}),
    (DDIM, {**SD, "clip_sample": True, "clip_sample_range": 0.5, "prediction_type": "v_prediction"}),
    (DDIM, {"trained_betas": [0.01 + 0.00001 * i for i in range(1000)]}),
    (DDIM, {}),
    (PNDM, {**SD, "skip_prk_steps": True, "set_alpha_to_one": True}),
    (EULER, {**SD, "use_karras_sigmas": True}),
    (EULER, {**SD, "use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0}),
    (EULER, {**SD, "use_exponential_sigmas": True, "timestep_spacing": "leading"}),
    (EULER, {**SD, "interpolation_type": "log_linear"}),
    (EULER, {**SD, "final_sigmas_type": "sigma_min"}),
    (EULER, {**SD, "timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True}),
    (DPM, {**SD, "use_karras_sigmas": True}),
    (DPM, {**SD, "use_karras_sigmas": True, "euler_at_final": True, "steps_offset": 1}),
    (DPM, {**SD, "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}),
    (DPM, {**SD, "use_lu_lambdas": True}),
    (DPM, {**SD, "use_exponential_sigmas": True}),
    (DPM, {**SD, "final_sigmas_type": "sigma_min"}),
    (DPM, {**SD, "solver_type": "heun"}),
    (DPM, {**SD, "solver_order": 1}),
    (DPM, {**SD, "solver_order": 3}),
    (DPM, {**SD, "solver_order": 3, "lower_order_final": False}),
    (DPM, {**SD, "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    (DPM, {**SD, "algorithm_type": "sde-dpmsolver++", "solver_type": "heun"}),
    (DPM, {**COSINE, "lambda_min_clipped": -5.1}),
    (DPM, {**COSINE, "lambda_min_clipped": -5.1, "timestep_spacing": "trailing"}),
    (DPM, {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}),
    (UNIPC, {**SD, "solver_order": 3}),
    (UNIPC, {**SD, "solver_order": 1}),
    (UNIPC, {**SD, "solver_order": 3, "final_sigmas_type": "sigma_min", "lower_order_final": False}),
    (UNIPC, {**SD, "solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
    (UNIPC, {**SD, "disable_corrector": [0, 1]}),
    (UNIPC, {**SD, "use_karras_sigmas": True}),
    (UNIPC, {**SD, "use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0}),
    (UNIPC, {**SD, "use_exponential_sigmas": True}),
    (UNIPC, {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}),
    (UNIPC, {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "shift_terminal": 0.1}),
    (LCM, {}),
    (LCM, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    (LCM, {"original_inference_steps": 100, "timestep_scaling": 8.0, "clip_sample": True}),
]


# With this option, diffusers does not support a single step.
NEEDS_SEVERAL_STEPS = "shift_terminal"


def case_id(case):
    name, options = case
    shown = [f"{key}={value}" for key, value in options.items() if key not in {*SD, "trained_betas", "skip_prk_steps"}]
    return "-".join([name.removesuffix("Scheduler"), *shown])


def reference(name, options):
    return getattr(diffusers, name)(**options)


@pytest.mark.parametrize("steps", [1, 2, 16])
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_text_to_image_loops_equal_those_of_diffusers(case, steps):
    name, options = case
    if steps == 1 and NEEDS_SEVERAL_STEPS in options:
        steps = 3
    assert_alike(tritonic_loop(name, options, steps), diffusers_loop(reference(name, options), steps))


@pytest.mark.parametrize(("steps", "strength"), [(10, 0.7), (8, 0.99)])
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_image_to_image_loops_equal_those_of_diffusers(case, steps, strength):
    name, options = case
    assert_alike(
        tritonic_loop(name, options, steps, strength=strength),
        diffusers_loop(reference(name, options), steps, strength=strength),
    )


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_inpainting_loops_equal_those_of_diffusers(case):
    name, options = case
    edit = {"strength": 0.8, "mask": half_mask()}
    assert_alike(tritonic_loop(name, options, 10, **edit), diffusers_loop(reference(name, options), 10, **edit))
