"""The check that every rule must pass: its two forms mean the same."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.inputs import MemoryInputs
from titans_eqx.memory.net import AbstractMemoryNet, MemoryNet
from titans_eqx.memory.rule import AbstractRule, AbstractRuleState
from titans_eqx.memory.scan import scan_aligned, scan_chunks, scan_tokens
from titans_eqx.nn.padding import Padding


def check_rule(
    rule: AbstractRule,
    net: AbstractMemoryNet | None = None,
    *,
    d: int = 4,
    key: PRNGKeyArray | None = None,
    tolerance: float | None = None,
) -> None:
    """Compare the forms of a rule on random tokens; for tests of rules.

    Checked are, over two chunks and a half: `chunk` against `step`, in reads, state and
    gradients; any split of the stream against the whole; causality, by gradients that
    are exactly zero; and padding, which must change nothing whatever it holds.

    Args:
        rule: The rule.
        net: What it writes; default a linear memory of width `d` without norm.
        d: Width of queries, keys and values.
        key: Decides the tokens.
        tolerance: Largest difference, absolute, of numbers of order one; default 1e-4,
            or 1e-10 with 64-bit numbers enabled.

    Raises:
        AssertionError: If two forms differ; says which, where and by how much.
    """
    net = MemoryNet(d, depth=1, norm=False) if net is None else net
    if tolerance is None:
        tolerance = 1e-10 if jnp.zeros(()).dtype == jnp.float64 else 1e-4
    n_tokens = 2 * rule.chunk_len + (rule.chunk_len + 1) // 2
    token_key, weight_key = jr.split(jr.key(0) if key is None else key)
    inputs = _random_inputs(rule, net, n_tokens, d, token_key)
    initial = net.init(weight_key)
    state = rule.init_state(initial)

    @eqx.filter_jit
    def by_tokens(inputs: MemoryInputs, state: AbstractRuleState) -> PyTree[Array]:
        return scan_tokens(rule, net, inputs, state, initial=initial)

    @eqx.filter_jit
    def by_chunks(inputs: MemoryInputs, state: AbstractRuleState) -> PyTree[Array]:
        return scan_chunks(rule, net, inputs, state, initial=initial)

    expected = by_tokens(inputs, state)
    _compare("chunk and step", by_chunks(inputs, state), expected, tolerance)

    aligned = eqx.filter_jit(scan_aligned)(
        rule, net, inputs, state, Padding.none(n_tokens), initial=initial
    )
    _compare("whole chunks and step", aligned, expected, tolerance)

    for cut in {1, rule.chunk_len - 1, rule.chunk_len, rule.chunk_len + 1} - {0}:
        first, middle = by_chunks(_rows(inputs, slice(0, cut)), state)
        second, last = by_chunks(_rows(inputs, slice(cut, None)), middle)
        parts = jnp.concatenate([first, second]), last
        _compare(f"the stream cut at token {cut} and whole", parts, expected, tolerance)

    def total(form, inputs: MemoryInputs, weights: MemoryWeights) -> Array:
        outputs = form(rule, net, inputs, rule.init_state(weights), initial=weights)
        leaves = jax.tree.leaves(eqx.filter(outputs, eqx.is_inexact_array))
        return sum((jnp.sum(jnp.square(x)) for x in leaves), jnp.zeros(()))

    gradient = eqx.filter_jit(jax.grad(total, argnums=(1, 2)), donate="none")
    slow, fast = (gradient(f, inputs, initial) for f in (scan_tokens, scan_chunks))
    # Gradients are sums over all tokens, so they are larger than what is compared else.
    _compare("gradients of chunk and step", fast, slow, 10 * n_tokens * tolerance)
    _check_causality(rule, net, inputs, initial)
    _check_padding(rule, net, inputs, initial)


def _check_causality(
    rule: AbstractRule,
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    initial: MemoryWeights,
) -> None:
    cut = rule.chunk_len + rule.chunk_len // 2
    state = rule.init_state(initial)

    @eqx.filter_jit
    @jax.grad
    def of_past_reads(inputs: MemoryInputs) -> Float[Array, ""]:
        reads, _ = scan_chunks(rule, net, inputs, state, initial=initial)
        return jnp.sum(jnp.square(reads[: cut + 1]))

    later = _rows(of_past_reads(inputs), slice(cut + 1, None))
    for path, leaf in jax.tree.leaves_with_path(later):
        if jnp.any(leaf != 0):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise AssertionError(
                f"{type(rule).__name__} is not causal: the reads up to token {cut} "
                f"depend on the {name} of later tokens."
            )


def _check_padding(
    rule: AbstractRule,
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    initial: MemoryWeights,
) -> None:
    length = inputs.keys.shape[0]
    padding = Padding.trailing(length - 1, length)
    state = rule.init_state(initial)
    run = eqx.filter_jit(scan_aligned)
    other = jax.tree.map(lambda x: x.at[-1].multiply(3.0), inputs)
    _, expected = run(rule, net, inputs, state, padding, initial=initial)
    _, actual = run(rule, net, other, state, padding, initial=initial)
    _compare("states beside one padding and another", actual, expected, 0.0)


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


def _rows(tree: PyTree[Array], rows: slice) -> PyTree[Array]:
    return jax.tree.map(lambda x: x[rows], tree)


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
