"""Train and measure a suite: `python scripts/sweep.py --suite recall --out DIR`."""

from titans_eqx.commands.sweep import main

if __name__ == "__main__":
    main()
