import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.memory import problems
from titans_eqx.memory import (
    GradientBoundary,
    MemoryNet,
    MemoryState,
    UpdateRule,
    scan_chunks,
    scan_tokens,
)

pytestmark = pytest.mark.usefixtures("x64")
CHUNK = 4
FORMS = {"tokens": scan_tokens, "chunks": scan_chunks}


def gradients(form, boundary, last_read_only=False):
    """Gradients of a loss on the reads by the inputs and by M_0."""
    net = MemoryNet(problems.D, 2, 2)
    inputs = problems.random_inputs(jr.key(0), 14, 2)
    rule = UpdateRule(boundary=boundary, clip=1.0)

    def loss(inputs, weights):
        state = MemoryState.initial(boundary.initial(weights))
        reads, _ = form(net, inputs, state, chunk_len=CHUNK, rule=rule)
        return jnp.sum((reads[-1] if last_read_only else reads) ** 2)

    weights = net.init(jr.key(1))
    return jax.jit(jax.grad(loss, argnums=(0, 1)))(inputs, weights)


def is_zero(tree):
    return all(not np.any(np.asarray(x)) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("initial_memory", ["frozen", "learned"])
@pytest.mark.parametrize("surprise", ["first_order", "full"])
def test_inputs_always_get_a_gradient_and_m0_only_if_learned(
    form, initial_memory, surprise
):
    boundary = GradientBoundary(initial_memory=initial_memory, surprise=surprise)
    by_inputs, by_weights = gradients(form, boundary)
    for leaf in jax.tree.leaves(by_inputs):
        assert np.any(np.asarray(leaf) != 0)
    assert is_zero(by_weights) == (initial_memory == "frozen")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_first_order_and_full_surprise_differ(form):
    first = gradients(form, GradientBoundary(surprise="first_order"))
    full = gradients(form, GradientBoundary(surprise="full"))
    assert problems.largest_difference(first, full) > 1e-6


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize(("every", "cut"), [(1, 12), (2, 8), (3, 12), (0, 0)])
def test_truncation_cuts_the_gradient_exactly_at_chunk_ends(form, every, cut):
    boundary = GradientBoundary(truncate_every=every)
    by_inputs, _ = gradients(form, boundary, last_read_only=True)
    for name in ("keys", "values", "step"):
        rows = np.any(np.asarray(getattr(by_inputs, name)) != 0, axis=1)
        np.testing.assert_array_equal(rows, np.arange(14) >= cut, err_msg=name)
