"""Attacks on a real gateway. Each measures the cost for other callers. README.md explains how to add one."""
