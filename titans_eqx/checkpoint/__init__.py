"""What makes files survive: checkpoints, run folders, metrics, files of arrays."""
