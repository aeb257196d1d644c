"""Let a model continue a text: `python scripts/generate.py --run runs/mac`."""

from titans_eqx.commands.generate import main

if __name__ == "__main__":
    main()
