"""Small random problems for the memory of one head, and the oracle's answer to them."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from tests.oracles.memory import memory_oracle
from titans_eqx.axes import MemoryWeights
from titans_eqx.memory import (
    AbstractMemoryNet,
    MemoryInputs,
    MemoryNet,
    MemoryState,
    UpdateRule,
    scan_chunks,
    scan_tokens,
)

D = 4


class Problem(NamedTuple):
    """A memory in the middle of a stream, and the tokens that come next."""

    inputs: MemoryInputs
    state: MemoryState
    initial: MemoryWeights  # M_0, far from the weights that the state has now


def random_inputs(key: PRNGKeyArray, n_tokens: int, depth: int) -> MemoryInputs:
    """Tokens whose gates lie well inside their ranges."""
    # NumPy draws need no compilation, and tests draw many shapes.
    rng = np.random.default_rng(np.asarray(jr.key_data(key)))
    gates = (
        rng.uniform(low, high, size=(n_tokens, depth))
        for low, high in ((0.01, 0.5), (0.1, 0.9), (0.05, 0.3))
    )
    return MemoryInputs(*map(jnp.asarray, (*rng.normal(size=(3, n_tokens, D)), *gates)))


def channel_wise(problem: Problem, net: AbstractMemoryNet) -> Problem:
    """The same problem, with an alpha for each row of the weights."""
    rng = np.random.default_rng(1)
    n_tokens = len(problem.inputs.keys)
    decay = tuple(
        jnp.asarray(rng.uniform(0.01, 0.5, size=(n_tokens, d_in)))
        for d_in, _ in net.shapes
    )
    inputs = eqx.tree_at(lambda inputs: inputs.decay, problem.inputs, decay)
    return problem._replace(inputs=inputs)


def draw_problem(net: AbstractMemoryNet, n_tokens: int, *, phase: int = 0) -> Problem:
    """Random tokens, and a state of which no part equals another without need."""
    rng = np.random.default_rng(0)

    def weights() -> MemoryWeights:
        return tuple(
            jnp.asarray(rng.normal(size=shape) / shape[0] ** 0.5)
            for shape in net.shapes
        )

    anchor, later, momentum, initial = (weights() for _ in range(4))
    state = MemoryState(
        anchor=anchor,
        # At phase 0 the weights are the anchor, whatever the stream has been.
        weights=later if phase > 0 else anchor,
        momentum=momentum,
        phase=jnp.asarray(phase, jnp.int32),
    )
    inputs = random_inputs(jr.key(0), n_tokens, len(net.shapes))
    return Problem(inputs, state, initial)


def solve(form, net: AbstractMemoryNet, chunk_len: int, rule: UpdateRule):
    """One form of the rule, compiled, as a function of a problem's three parts."""

    @eqx.filter_jit
    def run(
        inputs: MemoryInputs, state: MemoryState, initial: MemoryWeights
    ) -> tuple[Array, MemoryState]:
        return form(net, inputs, state, chunk_len=chunk_len, rule=rule, initial=initial)

    return run


def solve_both(net: AbstractMemoryNet, chunk_len: int, rule: UpdateRule):
    """The fast form and the definition."""
    return [solve(form, net, chunk_len, rule) for form in (scan_chunks, scan_tokens)]


def oracle_answer(
    problem: Problem, net: MemoryNet, chunk_len: int, rule: UpdateRule
) -> tuple[Array, MemoryState]:
    """What the plain NumPy oracle makes of a problem, in the shape of the two forms."""
    inputs, state, initial = jax.tree.map(np.asarray, problem)
    result = memory_oracle(
        state.weights,
        inputs.queries,
        inputs.keys,
        inputs.values,
        # The oracle knows channel-wise decay by its being a list.
        list(inputs.decay) if inputs.is_channel_wise else inputs.decay,
        inputs.momentum,
        inputs.step,
        chunk_len=chunk_len,
        clip=rule.clip or None,
        residual=net.residual,
        norm=net.norm,
        decay_towards=rule.decay_towards,
        initial=initial,
        anchor=state.anchor,
        surprise_state=state.momentum,
        phase=int(state.phase),
        read=rule.read,
    )
    reads, *trees, phase = jax.tree.map(jnp.asarray, tuple(result))
    weights, momentum, anchor = (tuple(tree) for tree in trees)
    return reads, MemoryState(anchor, weights, momentum, phase.astype(jnp.int32))


def largest_difference(one: PyTree[Array], other: PyTree[Array]) -> float:
    """Over all numbers of two trees of the same structure and shapes."""
    return max(
        float(np.max(np.abs(np.asarray(a) - np.asarray(b)), initial=0.0))
        for a, b in zip(*_twins(one, other), strict=True)
    )


def assert_identical(actual: PyTree, expected: PyTree) -> None:
    """Every number equal to its twin, with no tolerance."""
    for a, b in zip(*_twins(actual, expected), strict=True):
        np.testing.assert_array_equal(a, b)


def _twins(one: PyTree[Array], other: PyTree[Array]) -> list[list[Array]]:
    (leaves, structure), (others, other_structure) = map(jax.tree.flatten, (one, other))
    assert structure == other_structure
    assert [x.shape for x in leaves] == [x.shape for x in others]
    return [leaves, others]
