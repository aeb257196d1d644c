"""Memora: both forms equal an oracle, and weights are probabilities for ever."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from pydantic import ValidationError

from tests.memory.problems import D, draw_problem, largest_difference, solve_both
from tests.oracles.memora import column_softmax, memora_oracle
from titans_eqx.config import MemoryConfig, ModelConfig
from titans_eqx.memory import (
    HuberLoss,
    MemoraRule,
    MemoryNet,
    NeuralMemory,
    OuterGradient,
    check_rule,
)

pytestmark = pytest.mark.usefixtures("x64")
CHUNK = 4
NETS = {1: MemoryNet(D, 1, norm=False), 2: MemoryNet(D, 2, expansion=2)}


def memora_answer(rule, net, problem):
    """Reads, weights and anchor of the plain NumPy oracle."""
    inputs, state, _ = jax.tree.map(np.asarray, problem)
    result = memora_oracle(
        [column_softmax(x) for x in state.logits],
        inputs.queries,
        inputs.keys,
        inputs.values,
        inputs.gates["decay"],
        inputs.gates["learning_rate"],
        chunk_len=rule.chunk_len,
        anchor=state.anchor,
        offset=int(state.chunk_offset),
        clip=rule.clip or None,
        residual=net.residual,
        norm=net.norm,
        read=rule.read,
    )
    return jax.tree.map(jnp.asarray, tuple(result))


CASES = [(1, "before", 0.0), (2, "after", 1.0)]


@pytest.mark.parametrize(("depth", "read", "clip"), CASES)
def test_both_forms_equal_the_oracle(depth, read, clip):
    rule, net = MemoraRule(chunk_len=CHUNK, read=read, clip=clip), NETS[depth]
    forms = solve_both(rule, net)
    for offset in (0, 1, 3):
        problem = draw_problem(rule, net, 11, chunk_offset=offset)
        expected = memora_answer(rule, net, problem)
        for form in forms:
            reads, state = form(*problem)
            actual = reads, [*state.weights], [*state.anchor], state.chunk_offset
            assert largest_difference(actual, expected) < 1e-10


def test_the_rule_passes_its_check():
    """With a gate of the loss, and through the anchor."""
    outer_gradient = OuterGradient(surprise="full")
    check_rule(MemoraRule(chunk_len=3, loss=HuberLoss(), outer_gradient=outer_gradient))


D_MODEL = 8
SMALL = {
    "rule": "memora",
    "n_heads": 2,
    "expansion": 2,
    "chunk_len": CHUNK,
    "use_momentum": False,
}


def test_the_layer_reads_steps_like_the_sequence_and_mixes_what_it_reads():
    config = MemoryConfig(**SMALL, max_learning_rate=2.0)
    memory = NeuralMemory.from_config(D_MODEL, config, key=jr.key(0))
    assert isinstance(memory.heads.rule, MemoraRule)
    assert memory.heads.rule.max_learning_rate == 2
    x = jr.normal(jr.key(1), (11, D_MODEL))
    call, step = (eqx.filter_jit(f) for f in (NeuralMemory.__call__, NeuralMemory.step))
    whole = call(memory, x)
    reads, state = [], memory.init_state()
    for token in x:
        y, state = step(memory, token, state)
        reads.append(y)
    assert largest_difference((jnp.stack(reads), state), whole) < 1e-10
    for weights in memory.snapshot(state):
        np.testing.assert_allclose(jnp.sum(weights, axis=1), 1, atol=1e-12)
        assert np.all(weights > 0)


REFUSED = {
    "momentum": (
        {},
        r'use_momentum must be false with model\.memory\.rule = "memora", got true',
    ),
    "channels": (
        {"use_momentum": False, "decay": "channel"},
        r'decay must be "scalar" with model\.memory\.rule = "memora", got "channel"',
    ),
    "another retention": (
        {"use_momentum": False, "retention": "norm"},
        r'rule must be "titans" or "omega" with .*retention = "norm", got "memora"',
    ),
}


@pytest.mark.parametrize(("memory", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_combinations_that_mean_nothing_are_refused(memory, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig(memory=MemoryConfig(rule="memora", **memory))
