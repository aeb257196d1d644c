"""Memories that start anew with every shard, and queries led through its keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.memory.problems import (
    D,
    assert_identical,
    draw_problem,
    largest_difference,
    random_inputs,
    solve,
    solve_both,
    solve_in_pieces,
)
from tests.oracles.memory import memory_oracle
from titans_eqx.memory import (
    DeltaRule,
    LocalRule,
    MemoryNet,
    OmegaRule,
    OuterGradient,
    TitansRule,
    check_rule,
    scan_chunks,
    scan_tokens,
)
from titans_eqx.memory.local import scan_shards

SHARD, CHUNK = 6, 3
NET = MemoryNet(D, 2, expansion=1)
RULES = {
    "titans": (TitansRule(chunk_len=CHUNK, decay_towards="initial"), NET),
    "delta": (DeltaRule(chunk_len=CHUNK), MemoryNet(D, 1, norm=False)),
    "omega": (OmegaRule(D, chunk_len=CHUNK, window=3), NET),
}


def local(rule, **options):
    return LocalRule(rule, D, shard_len=SHARD, **options)


def sequence(rule, net, n_tokens):
    """Tokens of a sequence, and a memory that has not read any."""
    inputs, _, initial = draw_problem(rule, net, n_tokens)
    return inputs, rule.init_state(initial), initial


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("qk_projection", [True, False])
def test_every_shard_is_a_sequence_of_its_own_to_the_oracle(qk_projection):
    inner = TitansRule(chunk_len=CHUNK)
    rule = local(inner, qk_projection=qk_projection)
    inputs, state, initial = sequence(rule, NET, 14)
    q, k, v, gates = (
        jax.tree.map(np.asarray, part)
        for part in (inputs.queries, inputs.keys, inputs.values, inputs.gates)
    )
    reads = []
    for first in range(0, 14, SHARD):
        rows = slice(first, first + SHARD)
        queries = q[rows]
        if qk_projection:
            projectors = np.cumsum(k[rows, :, None] * k[rows, None, :], axis=0)
            queries = np.einsum("tij,tj->ti", projectors, queries)
        result = memory_oracle(
            list(map(np.asarray, initial)),
            queries,
            k[rows],
            v[rows],
            gates["decay"][rows],
            gates["momentum"][rows],
            gates["learning_rate"][rows],
            chunk_len=CHUNK,
            clip=inner.clip,
        )
        reads.append(result.reads)
    for form in (*solve_both(rule, NET), solve(scan_shards, rule, NET)):
        y, after = form(inputs, state, initial)
        np.testing.assert_allclose(y, np.concatenate(reads), atol=1e-10)
        assert largest_difference(list(after.weights), result.weights) < 1e-10
        assert int(after.shard_offset) == 14 - 2 * SHARD
        if qk_projection:
            np.testing.assert_allclose(after.projector, projectors[-1], atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("inner", "net"), RULES.values(), ids=RULES)
def test_shards_side_by_side_equal_the_stream_in_any_pieces(inner, net):
    rule = local(inner)
    problem = sequence(rule, net, 20)
    expected = solve(scan_shards, rule, net)(*problem)
    by_chunks, by_tokens = solve_both(rule, net)
    assert largest_difference(by_tokens(*problem), expected) < 1e-10
    assert largest_difference(by_chunks(*problem), expected) < 1e-10
    stream = draw_problem(rule, net, 20)._replace(state=problem[1])
    pieces = solve_in_pieces(by_chunks, stream, (5, 1, 7, 7))
    assert largest_difference(pieces, expected) < 1e-10


@pytest.mark.usefixtures("x64")
def test_the_rule_passes_the_check_of_all_rules():
    check_rule(local(RULES["titans"][0]), NET)


@pytest.mark.parametrize("form", [scan_tokens, scan_chunks, scan_shards])
def test_the_end_of_a_shard_is_the_start_of_the_next(form):
    rule, net = local(RULES["titans"][0]), NET
    inputs = random_inputs(rule, net, 2 * SHARD)
    initial = net.init(jax.random.key(0))
    state = rule.init_state(initial)
    _, after = form(rule, net, inputs, state, initial=initial)
    assert_identical(after, state)


@pytest.mark.usefixtures("x64")
def test_no_gradient_crosses_the_edge_of_a_shard():
    rule = local(TitansRule(chunk_len=CHUNK))
    inputs, state, initial = sequence(rule, NET, 2 * SHARD)

    def read(values):
        changed = type(inputs)(inputs.queries, inputs.keys, values, inputs.gates)
        return scan_shards(rule, NET, changed, state, initial=initial)[0]

    influence = np.abs(jax.jit(jax.jacobian(read))(inputs.values)).sum(axis=(1, 3))
    is_seen = np.tril(np.ones((SHARD, SHARD), bool))
    expected = np.kron(np.eye(2, dtype=bool), is_seen)
    assert np.all((influence > 0) == expected)


@pytest.mark.usefixtures("x64")
def test_the_outer_gradient_stops_where_it_does_token_by_token():
    """After chunks 2, 4 and 6 of shards of three: inside the second, and at its end."""
    outer_gradient = OuterGradient(initial_memory="learned", truncate_every=2)
    inner = DeltaRule(chunk_len=2, outer_gradient=outer_gradient)
    rule, net = local(inner), RULES["delta"][1]
    inputs, _, initial = sequence(rule, net, 15)

    def slopes(form):
        def loss(inputs, initial):
            state = rule.init_state(initial)
            return jnp.sum(form(rule, net, inputs, state, initial=initial)[0] ** 2)

        return jax.jit(jax.grad(loss, argnums=(0, 1)))(inputs, initial)

    assert largest_difference(slopes(scan_shards), slopes(scan_tokens)) < 1e-10


def test_a_shard_must_be_whole_chunks():
    with pytest.raises(ValueError, match=r"shard_len=7 and chunk_len=3"):
        LocalRule(TitansRule(chunk_len=3), D, shard_len=7)


def test_the_weights_to_go_back_to_must_be_there():
    rule = local(TitansRule(chunk_len=CHUNK))
    inputs, state, _ = sequence(rule, NET, 4)
    inputs = jax.tree.map(lambda x: x.astype(jnp.float32), inputs)
    with pytest.raises(ValueError, match="initial=None"):
        scan_chunks(rule, NET, inputs, state)
