"""The type of an array inside `shard_map`: over which mesh axes its values differ."""

from collections.abc import Collection

import jax
from jaxtyping import Array


def varying_axes(*arrays: Array) -> frozenset[str]:
    """Mesh axes over which any of some arrays varies; none outside `shard_map`."""
    types = (jax.typeof(x).manual_axis_type for x in arrays)
    return frozenset().union(*(type.varying for type in types))


def mark_varying(axes: Collection[str], x: Array) -> Array:
    """Say of an array that it varies over mesh axes, whether or not it does already."""
    missing = tuple(axis for axis in axes if axis not in varying_axes(x))
    return jax.lax.pcast(x, missing, to="varying") if missing else x
