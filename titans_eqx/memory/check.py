"""The check that every rule must pass: its two forms mean the same."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.affine import (
    AbstractAffineRule,
    memories_between,
    stacked,
    unstacked,
)
from titans_eqx.memory.ahead import has_map
from titans_eqx.memory.inputs import MemoryInputs
from titans_eqx.memory.loss import SquaredError, surprise_factors, token_surprise
from titans_eqx.memory.net import AbstractMemoryNet, MemoryNet
from titans_eqx.memory.rule import AbstractRule, AbstractRuleState
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
    causality, by gradients that are exactly zero; padding, which must change nothing;
    and `chunk_map`, where a rule has one. And of the network: the surprise as rank-one
    factors, which both forms may use, against the gradient itself.

    Args:
        rule: The rule.
        net: What it writes; default a linear memory of width 4 without norm.
        d: Width of queries, keys and values; default that of what the last map gives.
        key: Decides the tokens.
        tolerance: Largest difference, absolute, of numbers of order one; default 1e-4,
            or 1e-10 with 64-bit numbers enabled.

    Raises:
        AssertionError: If two forms differ, or the network does not apply each of its
            maps exactly once; says which, where and by how much.
    """
    net = MemoryNet(4, depth=1, norm=False) if net is None else net
    d = net.shapes[-1][1] if d is None else d
    if tolerance is None:
        tolerance = 1e-10 if jnp.zeros(()).dtype == jnp.float64 else 1e-4
    part_len = max(1, rule.chunk_len - 1)
    n_tokens = max(3 * part_len, rule.chunk_len + 2)
    token_key, weight_key = jr.split(jr.key(0) if key is None else key)
    inputs = _random_inputs(rule, net, n_tokens, d, token_key)
    initial = net.init(weight_key)
    state = rule.init_state(initial)
    factors, gradients = eqx.filter_jit(_surprises)(net, initial, inputs)
    largest = max(1.0, *(float(np.max(np.abs(g))) for g in gradients))
    what = "rank-one factors and gradient (a network applies each map once)"
    _compare(what, factors, gradients, largest * tolerance)

    # Compiling takes nearly all the time, so few programs have to serve: what a form
    # answers comes with its gradients, and parts of a stream are read as padded rows.
    trained, every_row = (inputs, initial), jnp.ones(n_tokens)
    by_chunks, by_tokens = (
        _gradients(form, rule, net) for form in (scan_chunks, scan_tokens)
    )
    slopes, answer = by_chunks(trained, every_row, jnp.ones(()))
    expected_slopes, expected = by_tokens(trained, every_row, jnp.ones(()))
    _compare("chunk and step", answer, expected, tolerance)
    aligned = eqx.filter_jit(partial(scan_aligned, rule, net, initial=initial))
    whole = aligned(inputs, state, Padding.none(n_tokens))
    _compare("whole chunks and step", whole, expected, tolerance)

    rows, parts, later = jax.tree.map(np.asarray, inputs), [], state
    for first in range(0, n_tokens, part_len):
        offset = first % rule.chunk_len
        places = slice(offset, offset + part_len)
        part = jax.tree.map(np.zeros_like, rows)
        for buffer, x in zip(jax.tree.leaves(part), jax.tree.leaves(rows), strict=True):
            buffer[places] = x[first : first + part_len]
        padding = Padding(
            start=jnp.int32(offset),
            stop=jnp.int32(offset + part_len),
            length=n_tokens,
            is_none=False,
        )
        reads, later = aligned(part, later, padding)
        parts.append(np.asarray(reads)[places])
    in_parts = jnp.asarray(np.concatenate(parts)), later
    _compare(f"parts of {part_len} tokens and step", in_parts, expected, tolerance)

    padding = Padding.trailing(n_tokens - 1, n_tokens)
    other = jax.tree.map(lambda x: np.concatenate([x[:-1], 3 * x[-1:]]), rows)
    _, beside_one = aligned(rows, state, padding)
    _, beside_other = aligned(other, state, padding)
    _compare("states beside two paddings", beside_other, beside_one, 0.0)

    if has_map(rule):
        memories = eqx.filter_jit(_by_maps_and_chunks)(
            rule, net, inputs, state, initial
        )
        _compare("chunk_map and chunk", *memories, tolerance)

    what = "gradients of chunk and step"
    _compare(what, slopes, expected_slopes, n_tokens * tolerance)
    last = rule.chunk_len
    start = (jnp.arange(n_tokens) <= last).astype(every_row.dtype)
    (by_inputs, _), _ = by_chunks(trained, start, jnp.zeros(()))
    for path, leaf in jax.tree.leaves_with_path(by_inputs):
        if np.any(np.asarray(leaf)[last + 1 :] != 0):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise AssertionError(
                f"{type(rule).__name__} is not causal: the reads up to token {last} "
                f"depend on the {name} of later tokens."
            )


def _gradients(
    form: Callable[..., PyTree[Array]], rule: AbstractRule, net: AbstractMemoryNet
) -> Callable[..., tuple[PyTree[Array], PyTree[Array]]]:
    """A function to the gradients of one form, by inputs and M_0, and its answer."""

    def loss(
        trained: tuple[MemoryInputs, MemoryWeights],
        row_weights: Float[Array, " seq"],
        state_weight: Float[Array, ""],
    ) -> tuple[Float[Array, ""], PyTree[Array]]:
        inputs, weights = trained
        reads, state = form(
            rule, net, inputs, rule.init_state(weights), initial=weights
        )
        floats = jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array))
        total = jnp.sum(row_weights[:, None] * jnp.square(reads))
        total = total + state_weight * sum(jnp.sum(jnp.square(x)) for x in floats)
        return total, (reads, state)

    return jax.jit(jax.grad(loss, has_aux=True))


def _by_maps_and_chunks(
    rule: AbstractAffineRule,
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    state: AbstractRuleState,
    initial: MemoryWeights,
) -> tuple[PyTree[Array], PyTree[Array]]:
    """The memories around three chunks, by their maps and by one after the other."""
    chunk = jax.tree.map(lambda x: x[: rule.chunk_len], inputs)
    prepared = rule.prepare(net, chunk, jnp.ones(rule.chunk_len, bool))
    carries = [rule.end_chunk(state)]
    for _ in range(3):
        start = rule.start_chunk(carries[-1])
        _, after = rule.chunk_prepared(net, prepared, start, initial)
        carries.append(rule.end_chunk(after))
    one = rule.chunk_map(net, prepared)
    maps = jax.tree.map(lambda x: jnp.stack([x] * 3), one)
    rows = memories_between(stacked(carries[0]), maps)
    return [unstacked(memory, carries[0]) for memory in rows], carries


def _surprises(
    net: AbstractMemoryNet, weights: MemoryWeights, inputs: MemoryInputs
) -> tuple[PyTree[Float[Array, "seq _ _"]], PyTree[Float[Array, "seq _ _"]]]:
    """Of each token, as the product of its factors, and by the weights themselves."""
    loss = SquaredError()
    factors = surprise_factors(net, loss, weights, inputs)
    products = (jax.vmap(jnp.outer)(a, g) for a, g in zip(*factors, strict=True))
    return tuple(products), jax.vmap(
        lambda token: token_surprise(net, loss, weights, token)
    )(inputs)


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
        # In NumPy, which compiles nothing.
        difference = float(np.max(np.abs(np.asarray(a) - np.asarray(b)), initial=0.0))
        if not difference <= tolerance:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise AssertionError(
                f"{what} differ by {difference:.3g} at {name}, allowed: {tolerance:g}."
            )
