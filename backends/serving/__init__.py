"""What every backend of ours needs of Triton, whatever its model does.

Errors with codes, threads that send and that look for clients who have gone, metrics, and the trap doors of the Python
backend that are known.
"""
