"""Small random problems for the memory of one head, and what the oracles answer."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from tests.oracles.delta import delta_oracle
from tests.oracles.memory import memory_oracle
from titans_eqx.axes import MemoryWeights
from titans_eqx.memory import (
    AbstractMemoryNet,
    AbstractRule,
    AbstractRuleState,
    DeltaRule,
    MemoraRule,
    MemoryInputs,
    MemoryNet,
    NeuralMemory,
    OmegaRule,
    RetentionRule,
    TitansRule,
    scan_chunks,
    scan_tokens,
)
from titans_eqx.memory.delta import DeltaState
from titans_eqx.memory.memora import MemoraState
from titans_eqx.memory.omega import OmegaState
from titans_eqx.memory.retention_rule import RetentionState
from titans_eqx.memory.titans import TitansState

D = 4
RANGES = {"decay": (0.01, 0.5), "momentum": (0.1, 0.9), "learning_rate": (0.05, 0.3)}


class Problem(NamedTuple):
    """A memory in the middle of a stream, and the tokens that come next."""

    inputs: MemoryInputs
    state: AbstractRuleState
    initial: MemoryWeights  # M_0, far from the weights that the state has now


def random_inputs(
    rule: AbstractRule, net: AbstractMemoryNet, n_tokens: int
) -> MemoryInputs:
    """Tokens whose gates lie well inside their ranges."""
    # NumPy draws need no compilation, and tests draw many shapes.
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, n_tokens, D))
    if isinstance(rule, DeltaRule):
        rows[:2] /= np.linalg.norm(rows[:2], axis=-1, keepdims=True)
    gates = {
        name: jnp.asarray(
            rng.uniform(*RANGES.get(name, (0.1, 0.9)), size=(n_tokens, spec.size))
        )
        for name, spec in sorted(rule.gate_specs(net).items())
    }
    return MemoryInputs(*map(jnp.asarray, rows), gates)


def draw_problem(
    rule: AbstractRule, net: AbstractMemoryNet, n_tokens: int, *, chunk_offset: int = 0
) -> Problem:
    """Random tokens, and a state of which no part equals another without need."""
    rng = np.random.default_rng(1)

    def weights() -> MemoryWeights:
        return tuple(
            jnp.asarray(rng.normal(size=shape) / shape[0] ** 0.5)
            for shape in net.shapes
        )

    anchor, later, velocity, initial = (weights() for _ in range(4))
    # At a chunk's start the weights are the anchor, whatever the stream has been.
    now = later if chunk_offset > 0 else anchor
    offset = jnp.asarray(chunk_offset, jnp.int32)
    match rule:
        case TitansRule():
            state = TitansState(
                weights=now, velocity=velocity, anchor=anchor, chunk_offset=offset
            )
        case DeltaRule():
            velocity = velocity if rule.use_momentum else ()
            state = DeltaState(weights=now, velocity=velocity, chunk_offset=offset)
        case OmegaRule():
            state = OmegaState(
                weights=now,
                velocity=velocity,
                anchor=anchor,
                pairs=_random_pairs(rule, net),
                chunk_offset=offset,
            )
        case RetentionRule():
            inner = draw_problem(rule.rule, net, n_tokens, chunk_offset=chunk_offset)
            scale = jnp.asarray(rng.uniform(0.5, 1.5, size=len(net.shapes)))
            state = RetentionState(inner.state, scale, offset)
        case MemoraRule():
            # Logits of order one, for weights that are far from equal.
            softmax = tuple(jax.nn.softmax(3 * w, axis=0) for w in anchor)
            state = MemoraState(tuple(3 * w for w in now), softmax, offset)
        case _:
            state = rule.init_state(now)
            state = eqx.tree_at(lambda state: state.chunk_offset, state, offset)
    return Problem(random_inputs(rule, net, n_tokens), state, initial)


def _random_pairs(rule: OmegaRule, net: AbstractMemoryNet) -> MemoryInputs:
    """What a stream has left in the window."""
    # Other tokens than those of the problem.
    pairs = jax.tree.map(
        lambda x: x[::-1] / 2, random_inputs(rule, net, rule.window - 1)
    )
    gates = {name: pairs.gates[name] for name in ("window", *rule.loss.gate_specs())}
    zeros = jnp.zeros_like(pairs.keys)
    return MemoryInputs(zeros, pairs.keys, pairs.values, gates)


def solve(form: Callable[..., Any], rule: AbstractRule, net: AbstractMemoryNet):
    """One form of a rule, compiled, as a function of a problem's three parts."""

    @eqx.filter_jit
    def run(
        inputs: MemoryInputs, state: AbstractRuleState, initial: MemoryWeights
    ) -> tuple[Array, AbstractRuleState]:
        return form(rule, net, inputs, state, initial=initial)

    return run


def solve_both(rule: AbstractRule, net: AbstractMemoryNet):
    """The fast form and the definition."""
    return [solve(form, rule, net) for form in (scan_chunks, scan_tokens)]


def solve_in_pieces(
    run: Callable[..., Any], problem: Problem, pieces: Sequence[int]
) -> tuple[np.ndarray, AbstractRuleState]:
    """A stream in pieces of these lengths, its state carried from one to the next."""
    # As NumPy arrays, whose slices need no compilation.
    stream, state = jax.tree.map(np.asarray, problem.inputs), problem.state
    reads, start = [], 0
    for piece in pieces:
        rows = slice(start, start + piece)
        inputs = jax.tree.map(lambda x, rows=rows: x[rows], stream)
        y, state = run(inputs, state, problem.initial)
        reads.append(np.asarray(y))
        start += piece
    return np.concatenate(reads), state


def titans_answer(
    rule: TitansRule, net: MemoryNet, problem: Problem
) -> tuple[Array, TitansState]:
    """What the plain NumPy oracle makes of a problem, in the shape of the two forms."""
    inputs, state, initial = jax.tree.map(np.asarray, problem)
    n_layers = len(net.shapes)
    none = np.zeros((len(inputs.keys), n_layers))
    decay = inputs.gates.get("decay", none)
    if rule.decay == "channel":
        # The oracle knows channel-wise decay by its being a list.
        ends = np.cumsum([d_in for d_in, _ in net.shapes])[:-1]
        decay = np.split(decay, ends, axis=1)
    result = memory_oracle(
        state.weights,
        inputs.queries,
        inputs.keys,
        inputs.values,
        decay,
        inputs.gates.get("momentum", none),
        inputs.gates["learning_rate"],
        chunk_len=rule.chunk_len,
        clip=rule.clip or None,
        residual=net.residual,
        norm=net.norm,
        decay_towards=rule.decay_towards,
        initial=initial,
        anchor=state.anchor,
        surprise_state=state.velocity,
        phase=int(state.chunk_offset),
        read=rule.read,
    )
    reads, *trees, offset = jax.tree.map(jnp.asarray, tuple(result))
    weights, velocity, anchor = (tuple(tree) for tree in trees)
    return reads, TitansState(
        weights=weights,
        velocity=velocity,
        anchor=anchor,
        chunk_offset=offset.astype(jnp.int32),
    )


def delta_answer(
    rule: DeltaRule, net: MemoryNet, problem: Problem
) -> tuple[Array, DeltaState]:
    """What the plain NumPy oracle makes of a problem, in the shape of the two forms."""
    inputs, state, _ = jax.tree.map(np.asarray, problem)
    none = np.zeros(len(inputs.keys))
    gates = {name: gate[:, 0] for name, gate in inputs.gates.items()}
    result = delta_oracle(
        state.weights[0],
        inputs.queries,
        inputs.keys,
        inputs.values,
        gates.get("decay", none),
        gates.get("momentum", none),
        gates["learning_rate"],
        velocity=state.velocity[0] if rule.use_momentum else None,
        residual=net.residual,
        read=rule.read,
        error_after_decay=rule.error_after_decay,
    )
    reads, weights, velocity = map(jnp.asarray, result)
    offset = (int(state.chunk_offset) + len(none)) % rule.chunk_len
    return reads, DeltaState(
        weights=(weights,),
        velocity=(velocity,) if rule.use_momentum else (),
        chunk_offset=jnp.asarray(offset, jnp.int32),
    )


def sum_of_squares(outputs: PyTree) -> Array:
    """Of all reads and states, so that the cotangents of all outputs differ."""
    leaves = jax.tree.leaves(eqx.filter(outputs, eqx.is_inexact_array))
    return sum((jnp.sum(jnp.square(x)) for x in leaves), jnp.zeros(()))


def gradient_of(form: Callable[..., Any], problem: Problem) -> Problem:
    """By every input, by M_0 and by every part of the state that came in."""

    def loss(problem: Problem):
        return sum_of_squares(form(*problem))

    return eqx.filter_jit(eqx.filter_grad(loss))(problem)


def zero_leaves(tree: PyTree[Array]) -> set[str]:
    """The paths of the leaves that are zero everywhere."""
    return {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree.leaves_with_path(tree)
        if not np.any(np.asarray(leaf))
    }


def largest_difference(one: PyTree[Array], other: PyTree[Array]) -> float:
    """Over all numbers of two trees of the same structure and shapes."""
    return max(
        float(np.max(np.abs(np.asarray(a) - np.asarray(b)), initial=0.0))
        for a, b in zip(*_twins(one, other), strict=True)
    )


def stream_difference(memory: NeuralMemory, x: Array) -> float:
    """How far a piece and then single tokens are from the sequence, state included."""
    call, step = (eqx.filter_jit(f) for f in (NeuralMemory.__call__, NeuralMemory.step))
    whole = call(memory, x)
    first, state = call(memory, x[:6], memory.init_state())
    reads = [*first]
    for token in x[6:]:
        y, state = step(memory, token, state)
        reads.append(y)
    return largest_difference((jnp.stack(reads), state), whole)


def assert_identical(actual: PyTree, expected: PyTree) -> None:
    """Every number equal to its twin, with no tolerance."""
    for a, b in zip(*_twins(actual, expected), strict=True):
        np.testing.assert_array_equal(a, b)


def _twins(one: PyTree[Array], other: PyTree[Array]) -> list[list[Array]]:
    (leaves, structure), (others, other_structure) = map(jax.tree.flatten, (one, other))
    assert structure == other_structure
    assert [x.shape for x in leaves] == [x.shape for x in others]
    return [leaves, others]
