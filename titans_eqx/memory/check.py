"""The check that every rule must pass: its two forms mean the same."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.inputs import MemoryInputs
from titans_eqx.memory.net import AbstractMemoryNet, MemoryNet
from titans_eqx.memory.rule import AbstractRule
from titans_eqx.memory.scan import scan_aligned, scan_chunks, scan_tokens
from titans_eqx.nn.padding import Padding


def check_rule(
    rule: AbstractRule,
    net: AbstractMemoryNet | None = None,
    *,
    d: int | None = None,
    key: PRNGKeyArray | None = None,
    tolerance: float | None = None,
) -> None:
    """Compare the forms of a rule on random tokens; for tests of rules.

    Checked are, over some chunks: `chunk` against `step`, in reads, state and
    gradients; the stream in parts that end anywhere in a chunk against the whole;
    causality, by gradients that are exactly zero; and padding, which must change
    nothing.

    Args:
        rule: The rule.
        net: What it writes; default a linear memory of width 4 without norm.
        d: Width of queries, keys and values; default that of the first linear map.
        key: Decides the tokens.
        tolerance: Largest difference, absolute, of numbers of order one; default 1e-4,
            or 1e-10 with 64-bit numbers enabled.

    Raises:
        AssertionError: If two forms differ; says which, where and by how much.
    """
    net = MemoryNet(4, depth=1, norm=False) if net is None else net
    d = net.shapes[0][0] if d is None else d
    if tolerance is None:
        tolerance = 1e-10 if jnp.zeros(()).dtype == jnp.float64 else 1e-4
    part_len = max(1, rule.chunk_len - 1)
    n_tokens = max(3 * part_len, rule.chunk_len + 2)
    token_key, weight_key = jr.split(jr.key(0) if key is None else key)
    inputs = _random_inputs(rule, net, n_tokens, d, token_key)
    initial = net.init(weight_key)
    state = rule.init_state(initial)
    by_tokens, by_chunks, aligned = (
        eqx.filter_jit(partial(form, rule, net, initial=initial))
        for form in (scan_tokens, scan_chunks, scan_aligned)
    )

    expected = by_tokens(inputs, state)
    _compare("chunk and step", by_chunks(inputs, state), expected, tolerance)
    whole = aligned(inputs, state, Padding.none(n_tokens))
    _compare("whole chunks and step", whole, expected, tolerance)

    parts, later = [], state
    for first in range(0, n_tokens, part_len):
        part = jax.tree.map(lambda x, n=first: x[n : n + part_len], inputs)
        reads, later = by_chunks(part, later)
        parts.append(reads)
    in_parts = jnp.concatenate(parts), later
    _compare(f"parts of {part_len} tokens and step", in_parts, expected, tolerance)

    padding = Padding.trailing(n_tokens - 1, n_tokens)
    other = jax.tree.map(lambda x: x.at[-1].multiply(3.0), inputs)
    _, beside_one = aligned(inputs, state, padding)
    _, beside_other = aligned(other, state, padding)
    _compare("states beside two paddings", beside_other, beside_one, 0.0)
    _check_gradients(rule, net, inputs, initial, n_tokens * tolerance)


def _check_gradients(
    rule: AbstractRule,
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    initial: MemoryWeights,
    tolerance: float,
) -> None:
    """Of both forms alike, and none by tokens later than what is differentiated."""
    n_tokens, last = inputs.keys.shape[0], rule.chunk_len
    everything = jnp.ones(n_tokens)
    start = (jnp.arange(n_tokens) <= last).astype(everything.dtype)

    def gradient(form: Callable[..., PyTree[Array]]) -> Callable[..., PyTree[Array]]:
        def loss(
            trained: tuple[MemoryInputs, MemoryWeights],
            row_weights: Float[Array, " seq"],
            state_weight: Float[Array, ""],
        ) -> Float[Array, ""]:
            inputs, weights = trained
            reads, state = form(
                rule, net, inputs, rule.init_state(weights), initial=weights
            )
            floats = jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array))
            total = jnp.sum(row_weights[:, None] * jnp.square(reads))
            return total + state_weight * sum(jnp.sum(jnp.square(x)) for x in floats)

        return jax.jit(jax.grad(loss))

    fast, slow = gradient(scan_chunks), gradient(scan_tokens)
    trained = inputs, initial
    actual, expected = (of(trained, everything, jnp.ones(())) for of in (fast, slow))
    _compare("gradients of chunk and step", actual, expected, tolerance)

    by_inputs, _ = fast(trained, start, jnp.zeros(()))
    for path, leaf in jax.tree.leaves_with_path(by_inputs):
        if jnp.any(leaf[last + 1 :] != 0):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise AssertionError(
                f"{type(rule).__name__} is not causal: the reads up to token {last} "
                f"depend on the {name} of later tokens."
            )


def _random_inputs(
    rule: AbstractRule,
    net: AbstractMemoryNet,
    n_tokens: int,
    d: int,
    key: PRNGKeyArray,
) -> MemoryInputs:
    row_key, gate_key = jr.split(key)
    queries, keys, values = jr.normal(row_key, (3, n_tokens, d)) * d**-0.5
    specs = rule.gate_specs(net)
    gates = {
        name: spec.high * jr.uniform(k, (n_tokens, spec.size), minval=0.05, maxval=0.6)
        for (name, spec), k in zip(
            sorted(specs.items()), jr.split(gate_key, len(specs)), strict=True
        )
    }
    return MemoryInputs(queries, keys, values, gates)


def _compare(
    what: str, actual: PyTree[Array], expected: PyTree[Array], tolerance: float
) -> None:
    """Leaf by leaf; NaN differs from everything."""
    for (path, a), b in zip(
        jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        difference = float(jnp.max(jnp.abs(a - b), initial=0.0))
        if not difference <= tolerance:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise AssertionError(
                f"{what} differ by {difference:.3g} at {name}, allowed: {tolerance:g}."
            )
