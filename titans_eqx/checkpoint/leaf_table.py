"""The leaves of a tree of arrays by path: shape and dtype, and a checksum.

Shapes and dtypes are stored beside the arrays and compared before they are read,
because orbax casts a wrong dtype silently and reports a wrong shape in its own terms.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeAlias

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from titans_eqx.sharding.processes import is_primary, whole

MAX_SPELT: Final = 80  # characters of a type and a shape in a message

LeafTable: TypeAlias = dict[str, dict[str, Any]]
"""For each path, such as `model.layers.0.weight`, its `dtype` and `shape`."""


def leaf_table(tree: PyTree) -> LeafTable:
    """List the leaves of a tree of arrays or `jax.ShapeDtypeStruct`.

    Raises:
        TypeError: If a leaf is no array.
    """
    table = {}
    for name, leaf in named_leaves(tree):
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise TypeError(
                f"{name} must be an array, got {type(leaf).__name__}; take the array "
                "half of a module with equinox.partition(module, equinox.is_array)."
            )
        table[name] = {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}
    return table


def leaf_checksums(tree: PyTree) -> dict[str, str]:
    """SHA-256 over dtype, shape and values of each leaf of a tree of arrays, by path.

    The values pass through the host one leaf at a time on each of its cores, which
    hash about 1 GB a second each. In a run of several processes, process 0 hashes the
    whole leaves, however they are split; the others help to gather them and get an
    empty table.
    """
    hashing: dict[str, Future[str]] = {}
    n_cores = os.cpu_count() or 1
    with ThreadPoolExecutor(n_cores) as pool:
        for name, leaf in named_leaves(tree):
            # Gathered here, for no two processes would run threads in the same order.
            values = whole(leaf) if isinstance(leaf, jax.Array) else leaf
            if not is_primary():
                continue
            if len(hashing) >= n_cores:  # or all leaves would be held at once
                [*hashing.values()][-n_cores].result()
            hashing[name] = pool.submit(_checksum, leaf.dtype, leaf.shape, values)
        return {name: one.result() for name, one in hashing.items()}


def first_difference(found: LeafTable, wanted: LeafTable) -> str | None:
    """The first difference of two tables, and how many more there are; None if equal.

    Args:
        found: The leaves that are stored.
        wanted: The leaves that the program expects.
    """
    differences = [
        f"{name} is {_spell(found.get(name), 'not')} in what was saved, "
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


def named_leaves(tree: PyTree) -> Iterator[tuple[str, Any]]:
    """The leaves of a tree with the paths that lead to them, `.` between the parts."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf


def _checksum(dtype: Any, shape: tuple[int, ...], leaf: Any) -> str:
    digest = hashlib.sha256(f"{dtype} {list(shape)}".encode())
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jr.key_data(leaf)
    if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
        # An array remembers its NumPy view, and while there is one its memory cannot
        # be donated to the next training step.
        leaf = leaf.addressable_data(0)
    # As bytes: no buffer has the types that NumPy does not know, such as bfloat16.
    digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _spell(leaf: dict[str, Any] | None, absent: str) -> str:
    if leaf is None:
        return absent
    # What is stored may be anything.
    return f"{leaf.get('dtype')}{leaf.get('shape')}".replace(" ", "")[:MAX_SPELT]
