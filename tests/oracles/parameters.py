"""The parameters of a module, taken out of it for the oracles."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import numpy as np


def parameters(tree: Any) -> Any:
    """The arrays of a module by the names of its fields, without its methods.

    Modules become namespaces; static fields, such as sizes and options, are left out:
    the oracles get those from the config.
    """
    if isinstance(tree, eqx.Module):
        return SimpleNamespace(
            **{
                field.name: parameters(getattr(tree, field.name))
                for field in dataclasses.fields(tree)
                if not field.metadata.get("static", False)
            }
        )
    if isinstance(tree, tuple | list):
        return [parameters(item) for item in tree]
    if isinstance(tree, dict):
        return {name: parameters(item) for name, item in tree.items()}
    return np.asarray(tree, np.float64) if eqx.is_array(tree) else None
