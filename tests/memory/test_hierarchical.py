"""TNT's hierarchy of memories, alone and in blocks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from pydantic import ValidationError

from tests.memory.problems import largest_difference
from tests.models.small import jittered, small_config
from tests.oracles import blocks
from tests.oracles.attention import linear, split
from tests.oracles.large_chunk import large_chunk_oracle
from tests.oracles.memory import memory_oracle
from tests.oracles.memory_layer import norm, project
from tests.oracles.parameters import parameters
from titans_eqx.config import MemoryConfig
from titans_eqx.memory import (
    HierarchicalMemory,
    LargeChunkRule,
    LocalRule,
    MemoryHeads,
    MemoryNet,
    NeuralMemory,
    TitansRule,
)

D_MODEL, HEADS, D, SHARD = 8, 2, 4, 8
TNT = {
    "rule": "large_chunk",
    "chunk_len": 8,
    "decay": "none",
    "local": {
        "chunk_lens": [2, 4],
        "shard_len": SHARD,
        "expansion": 1,
        "use_momentum": False,
    },
}
CONFIG = MemoryConfig(**TNT, n_heads=HEADS, expansion=2)
call = eqx.filter_jit(lambda memory, x, state: memory(x, state))
step = eqx.filter_jit(lambda memory, x, state: memory.step(x, state))


@pytest.fixture(scope="module")
def whole():
    """A memory, a sequence, and what the one makes of the other."""
    with jax.enable_x64(True):
        memory = jittered(
            HierarchicalMemory.from_config(D_MODEL, CONFIG, key=jr.key(0))
        )
        x = jr.normal(jr.key(1), (19, D_MODEL))
        return memory, x, *call(memory, x, None)


def gates(p, rule, x, head):
    """Of one head, by name."""
    highs = {"learning_rate": rule.max_learning_rate, "decay": 1.0}
    return {
        name: highs[name] * blocks.sigmoid(split(linear(gate, x), HEADS)[head])
        for name, gate in p.linears.items()
    }


def reads_of(memory, heads, p, x):
    """The reads of one of the memories, (heads, seq, d)."""
    projections = p.projections
    q, k, v = (
        split(project(one, x), HEADS)
        for one in (projections.query, projections.key, projections.value)
    )
    q, k = blocks.unit_norm(q), blocks.unit_norm(k)
    rule, answers = heads.rule, []
    for head in range(HEADS):
        initial = [layer[head] for layer in p.initial_weights]
        if heads is memory.global_heads:
            gate = gates(projections.gates, rule, x, head)
            result = large_chunk_oracle(
                initial,
                q[head],
                k[head],
                v[head],
                np.zeros_like(gate["learning_rate"]),
                gate["learning_rate"],
                chunk_len=rule.chunk_len,
                clip=rule.clip,
            )
            answers.append(result.reads)
            continue
        gate, reads = gates(projections.gates, rule.rule, x, head), []
        for first in range(0, len(x), SHARD):
            rows = slice(first, first + SHARD)
            keys = k[head, rows]
            projectors = np.cumsum(keys[:, :, None] * keys[:, None, :], axis=0)
            result = memory_oracle(
                initial,
                np.einsum("tij,tj->ti", projectors, q[head, rows]),
                keys,
                v[head, rows],
                gate["decay"][rows],
                np.zeros_like(gate["decay"][rows]),
                gate["learning_rate"][rows],
                chunk_len=rule.chunk_len,
                clip=rule.rule.clip,
            )
            reads.append(result.reads)
        answers.append(np.concatenate(reads))
    return np.array(answers)


def test_the_answer_is_the_sum_of_the_oracles_reads(whole):
    memory, x, y, _ = whole
    p, rows = parameters(memory), np.asarray(x)
    total = sum(
        reads_of(memory, heads, of_heads, rows)
        for heads, of_heads in zip(
            (memory.global_heads, *memory.local_heads),
            (p.global_heads, *p.local_heads),
            strict=True,
        )
    )
    normed = norm(p.read_out.norm, total)
    joined = np.concatenate(list(normed), axis=-1)
    gate = blocks.silu(linear(p.read_out.gate, rows))
    expected = linear(p.read_out.projection, joined * gate)
    np.testing.assert_allclose(y, expected, atol=1e-10)


def test_any_pieces_and_steps_equal_the_sequence(whole):
    memory, x, y, last = whole
    with jax.enable_x64(True):
        state, parts = memory.init_state(), []
        for start, stop in ((0, 2), (2, 17), (17, 19)):
            part, state = call(memory, x[start:stop], state)
            parts.append(part)
        assert largest_difference((jnp.concatenate(parts), state), (y, last)) < 1e-10
        state, parts = memory.init_state(), []
        for token in x:
            part, state = step(memory, token, state)
            parts.append(part)
        assert largest_difference((jnp.stack(parts), state), (y, last)) < 1e-10


@pytest.fixture(scope="module")
def slopes(whole):
    """A function to the gradients of all outputs up to a token, by memory and by x.

    Each output counts in another measure.
    """
    memory, x, *_ = whole
    weights = np.random.default_rng(2).normal(size=x.shape)
    is_past = np.arange(len(x))[:, None]

    @eqx.filter_jit
    @eqx.filter_grad
    def gradients(trained, weights):
        memory, x = trained
        return jnp.sum(memory(x)[0] * weights)

    def up_to(n):
        with jax.enable_x64(True):
            return gradients((memory, x), jnp.asarray(weights * (is_past <= n)))

    return up_to


def test_no_output_depends_on_a_later_token(slopes):
    for n in (2, 9):
        _, by_token = slopes(n)
        rows = np.abs(np.asarray(by_token)).sum(axis=1)
        assert np.all(rows[n + 1 :] == 0)
        assert np.all(rows[: n + 1] > 0)


def test_gradient_reaches_everything_but_the_frozen_global_memory(slopes):
    gradient, _ = slopes(18)
    without = {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree.leaves_with_path(gradient)
        if not np.any(np.asarray(leaf))
    }
    assert without == {f".global_heads.initial_weights[{i}]" for i in range(2)}


def test_the_stats_name_the_memories(whole):
    memory, x, _, state = whole
    with jax.enable_x64(True):
        stats = jax.eval_shape(memory.probe, x[0], state)
    assert stats.surprise.shape == stats.weight_norm.shape == (3 * HEADS,)
    assert stats.gates.keys() == {
        "global.learning_rate",
        *(f"local{i}.{gate}" for i in (1, 2) for gate in ("decay", "learning_rate")),
    }


def heads(rule, n_heads=HEADS):
    net = MemoryNet(D_MODEL // n_heads, 1)
    return MemoryHeads(D_MODEL, n_heads=n_heads, net=net, rule=rule, key=jr.key(0))


def test_a_local_memory_must_start_anew():
    with pytest.raises(ValueError, match="needs a LocalRule, got TitansRule"):
        HierarchicalMemory(
            heads(LargeChunkRule()), (heads(TitansRule()),), key=jr.key(0)
        )


def test_the_memories_must_have_one_size():
    local = LocalRule(TitansRule(chunk_len=2), 2, shard_len=8)
    with pytest.raises(ValueError, match=r"same d_model and n_heads, got \(8, 2\), "):
        HierarchicalMemory(heads(LargeChunkRule()), (heads(local, 4),), key=jr.key(0))


def test_a_single_memory_takes_no_config_with_local_ones():
    with pytest.raises(ValueError, match="HierarchicalMemory.from_config"):
        NeuralMemory.from_config(D_MODEL, CONFIG, key=jr.key(0))


def test_a_fresh_sequence_has_tokens():
    for kind, config in (
        (HierarchicalMemory, CONFIG),
        (NeuralMemory, MemoryConfig(n_heads=HEADS)),
    ):
        memory = eqx.filter_eval_shape(kind.from_config, D_MODEL, config, key=jr.key(0))
        with pytest.raises(ValueError, match="needs at least one token, got none"):
            eqx.filter_eval_shape(memory, jnp.zeros((0, D_MODEL)))


@pytest.mark.parametrize(
    ("memory", "message"),
    {
        "shard": (
            {"local": {"chunk_lens": [4, 6], "shard_len": 8}},
            "shard_len must be a multiple of all .*got 8 and 6",
        ),
        "no_lens": (
            {"local": {"shard_len": 8}},
            "model.memory.local has no effect without model.memory.local.chunk_lens",
        ),
        "rule": (
            {"local": {"chunk_lens": [4], "rule": "delta"}},
            'model.memory.local.depth must be 1 with model.memory.local.rule = "delta"',
        ),
        "update": ({"update": "muon"}, "update must be left out .*rule"),
        "read": (
            {"rule": "large_chunk", "read": "before"},
            'read must be left out with model.memory.rule = "large_chunk"',
        ),
        "segment": (
            {"rule": "large_chunk", "chunk_len": 6, "local": {"chunk_lens": [8]}},
            "segment_len must be a multiple of what the memories take in, got 4 and 8",
        ),
    }.values(),
    ids=["shard", "no_lens", "rule", "update", "read", "segment"],
)
def test_keys_that_do_not_go_together_are_refused(memory, message):
    with pytest.raises(ValidationError, match=message):
        small_config(memory=memory)
