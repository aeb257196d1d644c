"""The benchmark: speed and memory, one child process for each case."""
