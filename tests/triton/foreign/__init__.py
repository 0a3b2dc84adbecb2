"""Models with the published tensors of other projects and scripted engines, for a real Triton."""
