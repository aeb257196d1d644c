import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from titans_eqx.nn.depthwise import depthwise_product
from titans_eqx.nn.rows_product import rows_product


@pytest.mark.parametrize(
    ("product", "rows", "weight"),
    [(rows_product, (5, 6), (4, 6)), (depthwise_product, (10, 6), (3, 6))],
)
def test_each_device_takes_a_part_of_the_batch(product, rows, weight, getkey, x64):
    n_devices = jax.device_count()
    x = jr.normal(getkey(), (2 * n_devices, *rows))
    weight = jr.normal(getkey(), weight)

    def gradients(x, weight):
        def loss(x, weight):
            y = jax.vmap(product, (0, None))(x, weight)
            return jnp.sum(jnp.sin(y))

        return jax.grad(loss, (0, 1))(x, weight)

    mesh = jax.make_mesh((n_devices,), ("data",), axis_types=(AxisType.Auto,))
    # The weights vary over no axis, so their gradient arrives summed over the devices.
    on_devices = jax.shard_map(
        gradients, mesh=mesh, in_specs=(P("data"), P()), out_specs=(P("data"), P())
    )
    expected = gradients(x, weight)
    for ours, theirs in zip(jax.jit(on_devices)(x, weight), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
