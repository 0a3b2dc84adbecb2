"""Code that all trainings use: the loop over steps, groups of processes, scores, and the writing of pipelines."""
