"""Measure speed and memory: `python scripts/bench.py train`."""

from scripts.benchmark.commands import main

if __name__ == "__main__":
    main()
