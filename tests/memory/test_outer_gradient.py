import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import jaxtyping
import numpy as np
import pytest

from tests.memory import problems
from titans_eqx.memory import (
    DeltaRule,
    MemoryNet,
    OuterGradient,
    TitansRule,
    scan_chunks,
    scan_tokens,
)

pytestmark = pytest.mark.usefixtures("x64")
CHUNK, N_TOKENS = 4, 14
FORMS = {"tokens": scan_tokens, "chunks": scan_chunks}


RULES = {
    "titans": (TitansRule, MemoryNet(problems.D, 2, 2)),
    "delta": (DeltaRule, MemoryNet(problems.D, 1, norm=False)),
}


@functools.cache  # several tests ask for the same gradients
def gradient(form, outer_gradient, name):
    """Gradient of a loss on the reads by the inputs and by M_0, compiled."""
    rule_type, net = RULES[name]
    rule = rule_type(chunk_len=CHUNK, outer_gradient=outer_gradient)

    def loss(inputs, weights, counts):
        state = rule.init_state(outer_gradient.initial(weights))
        reads, _ = form(rule, net, inputs, state)
        return jnp.sum(counts[:, None] * reads**2)

    inputs = problems.random_inputs(rule, net, N_TOKENS)
    by_both = jax.jit(jax.grad(loss, argnums=(0, 1)))
    return functools.partial(by_both, inputs, net.init(jr.key(1)))


def gradients(form, outer_gradient, last_read_only=False, name="titans"):
    """Of a loss on all reads or on the last one."""
    counts = np.eye(N_TOKENS)[-1] if last_read_only else np.ones(N_TOKENS)
    return gradient(form, outer_gradient, name)(jnp.asarray(counts))


def is_zero(tree):
    return all(not np.any(np.asarray(x)) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("initial_memory", ["frozen", "learned"])
@pytest.mark.parametrize("surprise", ["first_order", "full"])
@pytest.mark.parametrize("name", RULES)
def test_inputs_always_get_a_gradient_and_m0_only_if_learned(
    name, form, initial_memory, surprise
):
    outer_gradient = OuterGradient(initial_memory=initial_memory, surprise=surprise)
    by_inputs, by_weights = gradients(form, outer_gradient, name=name)
    for leaf in jax.tree.leaves(by_inputs):
        assert np.any(np.asarray(leaf) != 0)
    assert is_zero(by_weights) == (initial_memory == "frozen")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_first_order_and_full_surprise_differ(form):
    first = gradients(form, OuterGradient(surprise="first_order"))
    full = gradients(form, OuterGradient(surprise="full"))
    assert problems.largest_difference(first, full) > 1e-6


def test_the_delta_rule_always_differentiates_its_errors_in_full():
    first, full = (
        gradients(scan_chunks, OuterGradient(surprise=surprise), name="delta")
        for surprise in ("first_order", "full")
    )
    problems.assert_identical(first, full)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize(("every", "cut"), [(1, 12), (2, 8), (0, 0)])
@pytest.mark.parametrize("rule", RULES)
def test_truncation_cuts_the_gradient_exactly_at_chunk_ends(rule, form, every, cut):
    outer_gradient = OuterGradient(truncate_every=every)
    by_inputs, _ = gradients(form, outer_gradient, last_read_only=True, name=rule)
    written = {
        "keys": by_inputs.keys,
        "values": by_inputs.values,
        "learning_rate": by_inputs.gates["learning_rate"],
    }
    for name, gradient in written.items():
        rows = np.any(np.asarray(gradient) != 0, axis=1)
        np.testing.assert_array_equal(rows, np.arange(N_TOKENS) >= cut, err_msg=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_memory": "Frozen"}, "initial_memory must be one of frozen, learned"),
        ({"surprise": "first-order"}, "surprise must be one of first_order, full"),
        ({"truncate_every": -1}, "truncate_every must be 0 .never. or more, got .*-1"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_option_is_refused(options, message, monkeypatch):
    # Not by its type alone, which only tests check.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        OuterGradient(**options)
