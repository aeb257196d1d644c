"""The leaves of a tree of arrays by path, with shape and dtype.

Stored beside a checkpoint's arrays and compared before they are read, because the
array store casts a wrong dtype silently and words a wrong shape for its own readers.
"""

from typing import Any

import jax
from jaxtyping import PyTree

LeafTable = dict[str, dict[str, Any]]  # path -> {"dtype": name, "shape": sizes}


def leaf_table(tree: PyTree) -> LeafTable:
    """Describe each leaf of a tree.

    Args:
        tree: Arrays or ``jax.ShapeDtypeStruct``; None is a hole, not a leaf.

    Returns:
        The description of each leaf by its path, such as ``model.layers.0.weight``.

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
    """Say how stored leaves differ from the wanted ones.

    Args:
        found: The leaves that are stored.
        wanted: The leaves that the program expects.

    Returns:
        The first difference, with the number of further ones; None if there is none.
    """
    differences = []
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found:
            differences.append(
                f"{name} is not in the checkpoint, expected {_spell(wanted[name])}"
            )
        elif name not in wanted:
            differences.append(
                f"{name} is {_spell(found[name])} in the checkpoint, expected nothing"
            )
        elif found[name] != wanted[name]:
            differences.append(
                f"{name} is {_spell(found[name])} in the checkpoint, "
                f"expected {_spell(wanted[name])}"
            )
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


def _spell(leaf: dict[str, Any]) -> str:
    return f"{leaf['dtype']}[{','.join(map(str, leaf['shape']))}]"
