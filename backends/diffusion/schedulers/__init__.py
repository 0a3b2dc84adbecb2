"""Noise schedulers: those of diffusers in numpy, for one image at a time."""

from backends.diffusion.schedulers.plan import Latent, Plan, Scheduler, SolverState
from backends.diffusion.schedulers.registry import make_scheduler

__all__ = ["Latent", "Plan", "Scheduler", "SolverState", "make_scheduler"]
