"""Continuous batching over any forward pass: rows join and leave between two steps."""
