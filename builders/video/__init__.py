"""The family `video`: diffusers' Wan pipelines, split into parts that Triton serves as models of their own."""
