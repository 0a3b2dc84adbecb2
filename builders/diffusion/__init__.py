"""The family `diffusion`: pipelines of diffusers, taken apart into engines that Triton serves side by side."""
