"""Quantisation of checkpoints with NVIDIA's ModelOpt, and the comparison of the result with its source."""
