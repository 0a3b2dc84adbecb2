"""The family `diffusion`: diffusers pipelines, split into parts that Triton serves as models of their own."""
