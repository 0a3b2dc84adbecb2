"""What the trainings share: the loop over steps, which saves and resumes, and groups of processes."""
