"""The acoustic models: phonemes in, samples out."""
