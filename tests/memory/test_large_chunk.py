"""Rules that write at the end of a chunk: both forms, an oracle, and bounds."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.memory.problems import (
    D,
    draw_problem,
    largest_difference,
    solve,
    solve_in_pieces,
)
from tests.oracles.large_chunk import large_chunk_oracle, orthogonalized
from titans_eqx.config import MemoryConfig
from titans_eqx.memory import (
    GradientUpdate,
    LargeChunkRule,
    MemoryNet,
    MuonUpdate,
    NeuralMemory,
    SoftmaxUpdate,
    check_rule,
    scan_chunks,
    scan_tokens,
)
from titans_eqx.memory.large_chunk import LargeChunkState
from titans_eqx.memory.muon import orthogonalize

CHUNK = 4
UPDATES = {
    "gradient": GradientUpdate(),
    "muon": MuonUpdate(),
    "softmax": SoftmaxUpdate(),
}
with_each_update = pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)


def answer(rule, net, problem):
    """What the oracle makes of a problem, in the shape of the two forms."""
    inputs, _, initial = jax.tree.map(np.asarray, problem)
    result = large_chunk_oracle(
        initial,
        inputs.queries,
        inputs.keys,
        inputs.values,
        inputs.gates.get("decay", np.zeros((len(inputs.keys), len(net.shapes)))),
        inputs.gates["learning_rate"],
        inputs.gates.get("momentum"),
        chunk_len=rule.chunk_len,
        are_probabilities=isinstance(rule.update, SoftmaxUpdate),
        clip=rule.clip or None,
        residual=net.residual,
        norm=net.norm,
    )
    reads, weights, update, kept, rate, offset = result
    return reads, LargeChunkState(
        weights=tuple(map(jnp.asarray, weights)),
        update=tuple(map(jnp.asarray, update)),
        kept=jnp.asarray(kept),
        rate=jnp.asarray(rate),
        chunk_offset=jnp.asarray(offset, jnp.int32),
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("use_decay", "clip"), [(True, 0.3), (False, 0.0)])
@with_each_update
def test_both_forms_and_every_block_equal_the_oracle(update, use_decay, clip):
    rule = LargeChunkRule(update, chunk_len=CHUNK, use_decay=use_decay, clip=clip)
    net = MemoryNet(D, 2, expansion=2)
    problem = draw_problem(rule, net, 11)
    problem = problem._replace(state=rule.init_state(problem.initial))
    expected = answer(rule, net, problem)
    for form in (scan_tokens, scan_chunks, partial(scan_chunks, block_len=2)):
        run = solve(form, rule, net)
        assert largest_difference(run(*problem), expected) < 1e-10
    pieces = solve_in_pieces(run, problem, (1, 5, 5))
    assert largest_difference(pieces, expected) < 1e-10


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@with_each_update
def test_the_rule_passes_the_check_of_all_rules(update):
    check_rule(LargeChunkRule(update, chunk_len=3), MemoryNet(D, 2, expansion=1))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_muon_brings_singular_values_near_one(shape):
    x = jr.normal(jr.key(0), shape)
    y = np.asarray(orthogonalize(x))
    np.testing.assert_allclose(y, orthogonalized(np.asarray(x)), atol=1e-12)
    assert np.all(np.abs(np.linalg.svd(y, compute_uv=False) - 1) < 0.3)
    np.testing.assert_allclose(orthogonalize(1e6 * x), y, atol=1e-10)


def test_muon_of_nothing_is_nothing_and_has_a_gradient():
    zeros = jnp.zeros((3, 4))
    np.testing.assert_array_equal(orthogonalize(zeros), zeros)
    gradient = jax.grad(lambda x: jnp.sum(orthogonalize(x)))(zeros)
    assert np.all(np.isfinite(gradient))


def test_muon_is_bounded_without_clipping_whatever_the_tokens():
    """A chunk adds at most about 1.2 times its mean learning rate in any direction."""
    rule = LargeChunkRule(MuonUpdate(), chunk_len=CHUNK, clip=0.0, use_decay=False)
    net = MemoryNet(D, 2, expansion=1)
    inputs, state, initial = draw_problem(rule, net, 10 * CHUNK)
    huge = jax.tree.map(lambda x: x.astype(jnp.float32), inputs)
    signs = jnp.where(jnp.arange(10 * CHUNK) % 2, 1e6, -1e6)[:, None]
    huge = type(inputs)(huge.queries, huge.keys, huge.values * signs, huge.gates)
    state = rule.init_state(jax.tree.map(lambda x: x.astype(jnp.float32), initial))
    _, after = scan_chunks(rule, net, huge, state)
    n_chunks, largest_rate = 10, float(jnp.max(inputs.gates["learning_rate"]))
    for before, now in zip(state.weights, after.weights, strict=True):
        change = np.linalg.norm(np.asarray(now - before), ord=2)
        assert 0 < change < 1.3 * n_chunks * largest_rate


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("update", ["gradient", "muon"])
def test_the_layer_streams_through_chunks_longer_than_its_blocks(update):
    config = MemoryConfig(
        rule="large_chunk",
        update=update,
        chunk_len=128,
        n_heads=2,
        expansion=1,
        decay="none",
    )
    memory = NeuralMemory.from_config(8, config, key=jr.key(0))
    assert memory.chunk_len == 64
    x = jr.normal(jr.key(1), (150, 8))
    call = eqx.filter_jit(lambda memory, x, state: memory(x, state))
    whole = call(memory, x, None)
    first, state = call(memory, x[:70], memory.init_state())
    second, state = call(memory, x[70:], state)
    parts = jnp.concatenate([first, second]), state
    assert largest_difference(parts, whole) < 1e-10
    assert int(state.heads.chunk_offset[0]) == 150 - 128
