"""The family `video`: diffusers' Wan and AnimateDiff pipelines, split into parts that Triton serves as models of their own."""
