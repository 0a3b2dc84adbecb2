"""A whole denoising loop with a scheduler of Tritonic, and the same loop with diffusers', as its pipelines call it."""

import inspect
import math

import numpy as np
import torch

from backends.diffusion.noise import NoiseGenerator
from backends.diffusion.schedulers import make_scheduler

SHAPE = (4, 8, 8)

# The tensors are too small to split among threads.
torch.set_num_threads(1)


def fake_denoiser(sample, timestep):
    """A nonlinear function of sample and timestep with outputs of about the size of noise."""
    time = float(timestep)
    return 0.9 * torch.tanh(0.8 * sample + math.sin(time / 150)) + 0.3 * torch.cos(sample * (1 + time / 1000))


def tritonic_loop(name, options, steps, *, seed=11, strength=None, mask=None, family="stable-diffusion", size=None):
    plan = make_scheduler({"class": name, **options}, family).plan(steps, strength or 1.0, size)
    state, noise = plan.begin(), NoiseGenerator(seed)
    first = noise.normal(SHAPE)
    original = original_latent()
    sample = first * np.float32(plan.initial_scale) if strength is None else plan.add_noise(original, first, 0)
    for i, timestep in enumerate(plan.timesteps):
        scaled, before = plan.scale_input(i, sample), sample.copy()
        output = fake_denoiser(torch.from_numpy(scaled), timestep).numpy()
        next_sample = plan.step(i, output, sample, state, noise)
        assert next_sample.dtype == scaled.dtype == np.float32
        assert np.array_equal(sample, before)
        sample = next_sample
        if mask is not None:
            is_last = i == len(plan.timesteps) - 1
            unmasked = original if is_last else plan.add_noise(original, first, i + 1)
            sample = ((1 - mask) * unmasked + mask * sample).astype(np.float32)
    return plan, sample


def diffusers_loop(scheduler, steps, *, seed=11, strength=None, mask=None, rounded_up=False, **options):
    """The loop of `StableDiffusionPipeline` and its image-to-image and inpainting pipelines; SD 3's if `rounded_up`."""
    scheduler.set_timesteps(**{"num_inference_steps": steps, **options})
    generator = torch.Generator("cpu").manual_seed(seed)
    first = torch.randn((1, *SHAPE), generator=generator)
    original = torch.from_numpy(original_latent())[None]

    def add_noise(latent, noise, timesteps):
        if hasattr(scheduler, "add_noise"):
            return scheduler.add_noise(latent, noise, timesteps)
        return scheduler.scale_noise(latent, timesteps, noise)

    timesteps = scheduler.timesteps
    if strength is None:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        sample = first * getattr(scheduler, "init_noise_sigma", 1.0)
    else:
        used = min(steps * strength if rounded_up else int(steps * strength), steps)
        begin = int(max(steps - used, 0))
        timesteps = timesteps[begin:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        sample = add_noise(original, first, timesteps[:1])
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for i, timestep in enumerate(timesteps):
        scaled = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample
        sample = scheduler.step(fake_denoiser(scaled, timestep), timestep, sample, **extra, return_dict=False)[0]
        if mask is not None:
            is_last = i == len(timesteps) - 1
            unmasked = original if is_last else add_noise(original, first, timesteps[i + 1 : i + 2])
            sample = (1 - torch.from_numpy(mask)) * unmasked + torch.from_numpy(mask) * sample
    return timesteps.numpy().astype(np.float32), sample[0].numpy()


def original_latent():
    return np.random.default_rng(5).normal(size=SHAPE).astype(np.float32)


def half_mask():
    mask = np.zeros((1, *SHAPE[1:]), np.float32)
    mask[..., : SHAPE[2] // 2] = 1
    return mask


def assert_alike(actual, expected):
    """Compare the timesteps and samples of two loops.

    Samples may differ by 1e-4, by 1e-4 of the largest value if that is above 1, or by the precision of float32 at the
    first sample: Euler's with zero terminal SNR is 4096 times the noise, and its last bit is worth 0.0005.
    """
    (plan, sample), (timesteps, reference) = actual, expected
    np.testing.assert_allclose(plan.timesteps, timesteps, rtol=1e-6, atol=1e-4)
    assert plan.timesteps.dtype == np.float32
    assert np.isfinite(reference).all()
    bound = max(1e-4, 1e-4 * np.abs(reference).max(), plan.initial_scale * float(np.finfo(np.float32).eps))
    assert np.abs(sample - reference).max() <= bound
