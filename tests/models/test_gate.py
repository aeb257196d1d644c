import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from tests.oracles.blocks import rms_norm, sigmoid
from titans_eqx.models.gate import MemoryGate

KINDS = ("add", "mix", "multiply")
Y, M = np.random.default_rng(0).normal(size=(2, 4))
G, Y_SCALE, M_SCALE = np.random.default_rng(1).normal(size=(3, 4))
NORMED_Y, NORMED_M = rms_norm(Y, Y_SCALE, eps=1e-5), rms_norm(M, M_SCALE, eps=1e-5)
BY_HAND = {
    "add": Y + sigmoid(G) * M,
    "mix": (1 - sigmoid(G)) * NORMED_Y + sigmoid(G) * NORMED_M,
    "multiply": NORMED_Y * sigmoid(NORMED_M),
}


def build(kind):
    """A gate whose parameters are all away from their starting values."""
    gate = MemoryGate(4, kind)
    if gate.gate is not None:
        gate = eqx.tree_at(lambda g: g.gate, gate, jnp.asarray(G))
    if gate.attention_norm is not None:
        gate = eqx.tree_at(
            lambda g: (g.attention_norm.weight, g.memory_norm.weight),
            gate,
            (jnp.asarray(Y_SCALE), jnp.asarray(M_SCALE)),
        )
    return gate


@pytest.mark.parametrize("kind", KINDS)
def test_equals_its_formula(x64, kind):
    out = build(kind)(jnp.asarray(Y), jnp.asarray(M))
    np.testing.assert_allclose(out, BY_HAND[kind], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_both_streams_and_every_parameter(kind):
    gate = MemoryGate(4, kind)
    y, m = jnp.asarray(Y, jnp.float32), jnp.asarray(M, jnp.float32)
    loss = eqx.filter_grad(lambda args: jnp.sum(args[0](*args[1:]) ** 2))
    leaves = jax.tree.leaves(loss((gate, y, m)))
    assert len(leaves) == 2 + {"add": 1, "mix": 3, "multiply": 2}[kind]
    assert all(np.any(leaf) for leaf in leaves)


def test_an_unknown_kind_is_refused(monkeypatch):
    # Not by its type alone, which only tests check.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="add, mix, multiply, got kind='sum'"):
        MemoryGate(4, "sum")


@pytest.mark.parametrize("kind", ["add", "mix"])
def test_the_memory_gets_gradient_where_attention_gives_nothing(kind):
    gate, m = MemoryGate(4, kind), jnp.asarray(M, jnp.float32)
    slope = jax.jacobian(lambda m: gate(jnp.zeros(4), m))(m)
    assert np.any(slope)
