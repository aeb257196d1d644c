import equinox as eqx
import jax
import jax.random as jr
import numpy as np

from titans_eqx.memory.read_out import ReadOut

D_MODEL, N_TOKENS = 8, 19


def test_a_gate_that_starts_open_lets_everything_through():
    x = jr.normal(jr.key(1), (N_TOKENS, D_MODEL))
    reads = jr.normal(jr.key(2), (N_TOKENS, 2, D_MODEL // 2))
    read_out = ReadOut(D_MODEL, 2, norm=False, gate_start="open", key=jr.key(0))
    flat, projection = reads.reshape(N_TOKENS, D_MODEL), read_out.projection.weight
    np.testing.assert_allclose(read_out(x, reads), flat @ projection.T, atol=1e-6)

    weight = jr.normal(jr.key(3), (D_MODEL, D_MODEL))
    trained = eqx.tree_at(lambda r: r.gate.weight, read_out, weight)
    gate = jax.nn.silu(x @ weight.T + 1.2784645)  # 1 + W(1 / e)
    expected = (flat * gate) @ projection.T
    np.testing.assert_allclose(trained(x, reads), expected, atol=1e-5)
