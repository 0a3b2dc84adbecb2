"""How noise becomes a latent, run by run: diffusers' schedulers on numpy, for one image at a time."""

from backends.diffusion.schedulers.making import make
from backends.diffusion.schedulers.plan import Latent, Plan, Scheduler, State

__all__ = ["Latent", "Plan", "Scheduler", "State", "make"]
