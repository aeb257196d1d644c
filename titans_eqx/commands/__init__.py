"""The commands behind `scripts/` and the console scripts: parse, call one function."""
