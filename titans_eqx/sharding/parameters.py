"""Parameters split over the devices of the mesh's axis `fsdp`.

Each device keeps a part of every large array and gathers the whole one where it is
used: a layer's inside the scan over layers, so that one layer at a time is whole. The
derivative of gathering sums the gradients and leaves each device its part of the sum
(reduce-scatter), and the optimizer works on parts only.

Which axis is split follows from an array's shape alone, so the same rule serves
parameters, their averages and the optimizer's state. The first axis is never split: of
arrays that are stacked over layers it is the layers.
"""

import math
from typing import Any, Final, TypeAlias, TypeVar

import equinox as eqx
import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped

from titans_eqx.nn.tree import AnyArray
from titans_eqx.sharding.mesh import FSDP_AXIS, AnyMesh

Tree = TypeVar("Tree", bound=PyTree)
# The hook that checks types is not told what their leaves are: looking at each of them
# would take a quarter of the time of a small run.
Arrays: TypeAlias = PyTree
"""A tree of arrays, or of the shapes of some that were not made."""
Specs: TypeAlias = PyTree
"""A tree of `PartitionSpec`s."""
Shardings: TypeAlias = PyTree
"""A tree of `NamedSharding`s."""

# Of an array that is split: gathering a smaller one costs more than it saves.
LEAST_ELEMENTS: Final = 1024


class Shard(eqx.Module):
    """This device's part of an array, inside `shard_map`."""

    part: Shaped[Array, "..."]
    axis: int = eqx.field(static=True)  # counted from the last one, which is -1

    def gather(self) -> Shaped[Array, "..."]:
        """The whole array."""
        axis = self.part.ndim + self.axis
        return jax.lax.all_gather(self.part, FSDP_AXIS, axis=axis, tiled=True)


def split_axis(x: AnyArray, n_parts: int) -> int | None:
    """The axis along which an array is split: its largest that can be, or None.

    Returns:
        The axis counted from the end.
    """
    if n_parts == 1 or math.prod(x.shape) < LEAST_ELEMENTS:
        return None
    axes = [a for a in range(1 - len(x.shape), 0) if x.shape[a] % n_parts == 0]
    return max(axes, key=lambda axis: x.shape[axis], default=None)


def partition_specs(tree: Arrays, mesh: AnyMesh) -> Specs:
    """How each array is spread over a mesh, given their whole shapes."""

    def spec(x: AnyArray) -> PartitionSpec:
        axis = split_axis(x, mesh.shape[FSDP_AXIS])
        if axis is None:
            return PartitionSpec()
        return PartitionSpec(*[None] * (len(x.shape) + axis), FSDP_AXIS)

    return jax.tree.map(spec, tree)


def shardings(tree: Arrays, mesh: AnyMesh) -> Shardings:
    """`partition_specs` with their mesh."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec), partition_specs(tree, mesh)
    )


def placed_shapes(tree: Arrays, shardings: Shardings) -> Arrays:
    """The shapes of arrays, each with where it will be; for tracing a program."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=sharding, weak_type=x.weak_type
        ),
        tree,
        shardings,
    )


def device_bytes(tree: Arrays, mesh: AnyMesh) -> int:
    """Bytes of each device's parts of arrays, given their whole shapes."""
    parts = jax.tree.map(
        lambda x, sharding: math.prod(sharding.shard_shape(x.shape)) * x.dtype.itemsize,
        tree,
        shardings(tree, mesh),
    )
    return sum(jax.tree.leaves(parts))


def as_shards(model: Tree, axes: PyTree[int | None]) -> Tree:
    """The model with a `Shard` in place of each array that is a part.

    Args:
        model: With this device's arrays.
        axes: From `split_axes` of the model with whole arrays.
    """

    def wrap(axis: int | None, leaf: Any) -> Any:
        return leaf if axis is None else Shard(leaf, axis)

    return jax.tree.map(wrap, axes, model, is_leaf=lambda x: x is None)


def split_axes(model: PyTree, mesh: AnyMesh) -> PyTree[int | None]:
    """The `split_axis` of every leaf; None for leaves that are no arrays too."""

    def axis(leaf: Any) -> int | None:
        return split_axis(leaf, mesh.shape[FSDP_AXIS]) if eqx.is_array(leaf) else None

    return jax.tree.map(axis, model)


def gather(tree: Tree, *, but: tuple[type, ...] = ()) -> Tree:
    """The tree with whole arrays, except inside nodes of some types."""

    def whole(node: Any) -> Any:
        return node.gather() if isinstance(node, Shard) else node

    return jax.tree.map(
        whole, tree, is_leaf=lambda node: isinstance(node, (Shard, *but))
    )


def has_shards(tree: PyTree) -> bool:
    """Whether any array is a `Shard`."""
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Shard))
    return any(isinstance(node, Shard) for node in nodes)
