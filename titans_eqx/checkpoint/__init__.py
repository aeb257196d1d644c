"""What makes files survive: checkpoints, manifests, run folders, array files."""
