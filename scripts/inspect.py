"""Watch a model's memories while it reads: `scripts/inspect.py --run DIR --text FILE`.

Python looks for modules in a script's own folder first, so every script here that
imports the standard library's `inspect` finds this file. It then hands over to the real
one, and the command itself lives in the package.
"""

if __name__ == "inspect":
    import sys
    from importlib.util import module_from_spec, spec_from_file_location
    from sysconfig import get_path

    spec = spec_from_file_location("inspect", f"{get_path('stdlib')}/inspect.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules["inspect"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["inspect"])
else:
    from titans_eqx.commands.inspect import main

if __name__ == "__main__":
    main()
