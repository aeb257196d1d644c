"""Measure speed and memory: `python scripts/bench.py train`."""

from scripts.benchmark.main import main

if __name__ == "__main__":
    main()
