"""The matrix peak of a machine, measured by a large product."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from scripts.benchmark.timing import seconds_of
from titans_eqx.sharding.mesh import BATCH, batch_sharding, build_mesh


class Product:
    """A large matrix product, float32 as the models are.

    On several devices it is tried both ways, as one product and as one on each device,
    and the faster way counts: which one that is depends on the machine.
    """

    def __init__(self, side: int) -> None:
        """Compile the products.

        Args:
            side: Rows and columns of the matrices.
        """
        n_devices = len(jax.devices())
        self._ways = [_one_product(side)]
        if n_devices > 1:
            self._ways.append(_product_on_each_device(side, n_devices))
        for run, _ in self._ways:
            jax.block_until_ready(run())

    def flops_per_second(self) -> float:
        """Measure once.

        Returns:
            FLOP/s of the faster way.
        """
        return max(flops / seconds_of(run) for run, flops in self._ways)


def _one_product(side: int) -> tuple[Callable[[], Array], int]:
    matrix = jnp.full((side, side), 0.5)
    multiply = jax.jit(jnp.matmul)
    return partial(multiply, matrix, matrix), 2 * side**3


def _product_on_each_device(
    side: int, n_devices: int
) -> tuple[Callable[[], Array], int]:
    mesh = build_mesh(n_devices, n_devices)
    matrices = jax.device_put(
        jnp.full((n_devices, side, side), 0.5), batch_sharding(mesh)
    )

    def multiply_local(local: Float[Array, "1 side side"]) -> Array:
        return (local[0] @ local[0])[None]

    multiply = jax.jit(
        jax.shard_map(multiply_local, mesh=mesh, in_specs=BATCH, out_specs=BATCH)
    )
    return partial(multiply, matrices), n_devices * 2 * side**3
