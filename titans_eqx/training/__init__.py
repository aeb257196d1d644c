"""Training: steps, checkpoints, the run folder and what the user sees of it."""
