"""The family `video`: pipelines of Wan and AnimateDiff, split into parts that Triton serves as models of their own."""
