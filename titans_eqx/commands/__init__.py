"""The commands of `scripts/` and the console scripts: parse, call one function."""
