"""Turn texts into token shards: `python scripts/prepare.py --path DIR --out DIR`."""

from titans_eqx.commands.prepare import main

if __name__ == "__main__":
    main()
