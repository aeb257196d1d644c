"""The leaves of a tree of arrays by path, with shape and dtype.

Stored beside the arrays and compared before they are read, because orbax casts a wrong
dtype silently and reports a wrong shape in its own terms.
"""

from typing import Any, TypeAlias

import jax
from jaxtyping import PyTree

LeafTable: TypeAlias = dict[str, dict[str, Any]]
"""For each path, such as `model.layers.0.weight`, its `dtype` and `shape`."""


def leaf_table(tree: PyTree) -> LeafTable:
    """List the leaves of a tree of arrays or `jax.ShapeDtypeStruct`.

    Raises:
        TypeError: If a leaf is no array.
    """
    table = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise TypeError(
                f"{name} must be an array, got {type(leaf).__name__}; take the array "
                "half of a module with equinox.partition(module, equinox.is_array)."
            )
        table[name] = {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}
    return table


def first_difference(found: LeafTable, wanted: LeafTable) -> str | None:
    """The first difference of two tables, and how many more there are; None if equal.

    Args:
        found: The leaves that are stored.
        wanted: The leaves that the program expects.
    """
    differences = [
        f"{name} is {_spell(found.get(name), 'not')} in the checkpoint, "
        f"expected {_spell(wanted.get(name), 'nothing')}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if not differences:
        return None
    others = len(differences) - 1
    return differences[0] + (f" (and {others} more differences)" if others else "")


def abstract_leaf(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape, dtype and sharding of a leaf; without one, the first device's."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _spell(leaf: dict[str, Any] | None, absent: str) -> str:
    if leaf is None:
        return absent
    return f"{leaf['dtype']}[{','.join(map(str, leaf['shape']))}]"
