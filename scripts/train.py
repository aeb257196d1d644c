"""Train a model: `python scripts/train.py --config configs/mac.toml`."""

from titans_eqx.commands.train import main

if __name__ == "__main__":
    main()
