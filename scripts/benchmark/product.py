"""The matrix peak of a machine, measured by a large product."""

from collections.abc import Callable
from functools import cached_property, partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from scripts.benchmark.timing import seconds_of
from titans_eqx.sharding.mesh import BATCH, batch_sharding, build_mesh


class Product:
    """A large matrix product.

    On several devices it is tried both ways, as one product and as one on each device,
    and the faster way counts: which one that is depends on the machine.
    """

    def __init__(self, side: int, dtype: DTypeLike) -> None:
        """Allocate nothing yet.

        Args:
            side: Rows and columns of the matrices.
            dtype: Of the matrices, that of what it is compared with.
        """
        self._side = side
        self._dtype = dtype

    def flops_per_second(self) -> float:
        """Measure the faster way once."""
        return max(flops / seconds_of(run) for run, flops in self._ways)

    @cached_property
    def _ways(self) -> list[tuple[Callable[[], Array], int]]:
        n_devices = len(jax.devices())
        ways = [_one_product(self._side, self._dtype)]
        if n_devices > 1:
            ways.append(_product_on_each_device(self._side, self._dtype, n_devices))
        for run, _ in ways:
            jax.block_until_ready(run())
        return ways


def _one_product(side: int, dtype: DTypeLike) -> tuple[Callable[[], Array], int]:
    matrix = jnp.full((side, side), 0.5, dtype)
    multiply = jax.jit(jnp.matmul)
    return partial(multiply, matrix, matrix), 2 * side**3


def _product_on_each_device(
    side: int, dtype: DTypeLike, n_devices: int
) -> tuple[Callable[[], Array], int]:
    mesh = build_mesh(n_devices, data=n_devices)
    matrices = jax.device_put(
        jnp.full((n_devices, side, side), 0.5, dtype), batch_sharding(mesh)
    )

    def multiply_local(local: Float[Array, "1 side side"]) -> Array:
        return (local[0] @ local[0])[None]

    multiply = jax.jit(
        jax.shard_map(multiply_local, mesh=mesh, in_specs=BATCH, out_specs=BATCH)
    )
    return partial(multiply, matrices), n_devices * 2 * side**3
