"""Write a model as safetensors: `python scripts/export.py --run DIR --out DIR`."""

from titans_eqx.commands.export import main

if __name__ == "__main__":
    main()
