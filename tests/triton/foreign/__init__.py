"""Models with other people's tensors, for a real Triton: the published configurations, and scripts for engines."""
