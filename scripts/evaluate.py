"""Measure a trained model: `python scripts/evaluate.py --run DIR --task needle`."""

from titans_eqx.commands.evaluate import main

if __name__ == "__main__":
    main()
