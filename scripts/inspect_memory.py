"""Look into memories: `python scripts/inspect_memory.py --run DIR --text FILE`."""

from titans_eqx.commands.inspect import main

if __name__ == "__main__":
    main()
