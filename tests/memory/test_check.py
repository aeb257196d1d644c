"""`check_rule` lets right rules pass, and says what is wrong with the others."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from tests.memory.outside import HebbianRule, SkipNet
from titans_eqx.memory import (
    AffineMap,
    DeltaRule,
    GateSpec,
    MemoryNet,
    ReadOnlyRule,
    TitansRule,
    check_rule,
)

CHUNK = 3  # little to compile
DEEP = MemoryNet(4, 2, expansion=2)
RIGHT = {
    "titans": (TitansRule(chunk_len=CHUNK), SkipNet()),
    "delta": (DeltaRule(chunk_len=CHUNK), None),
    "features": (
        DeltaRule(chunk_len=CHUNK),
        MemoryNet(3, depth=1, norm=False, residual=False, degree=2),
    ),
    "delta, no momentum": (DeltaRule(chunk_len=CHUNK, use_momentum=False), None),
    "delta, error after decay": (
        DeltaRule(chunk_len=CHUNK, use_momentum=False, error_after_decay=True),
        None,
    ),
    "switched off": (ReadOnlyRule(TitansRule(chunk_len=CHUNK)), DEEP),
    "from outside": (HebbianRule(chunk_len=CHUNK), None),
    "chunks of one token": (HebbianRule(chunk_len=1), None),
}


@pytest.mark.parametrize(("rule", "net"), RIGHT.values(), ids=RIGHT.keys())
def test_right_rules_pass(x64, rule, net):
    check_rule(rule, net)


def test_right_rules_pass_in_single_precision():
    check_rule(HebbianRule(chunk_len=CHUNK))


class WrongFactor(HebbianRule):
    """Reads that are too large by a millionth."""

    def chunk(self, *args):
        reads, state = super().chunk(*args)
        return reads * (1 + 1e-6), state


class WrongState(HebbianRule):
    """Right reads within a chunk, and a wrong memory after it."""

    def chunk(self, *args):
        reads, state = super().chunk(*args)
        return reads, eqx.tree_at(lambda s: s.weights[0], state, replace_fn=jnp.sin)


class LooksAhead(HebbianRule):
    """A token reads the whole chunk, its future included."""

    def chunk(self, net, inputs, is_real, state, initial):
        _, last = super().chunk(net, inputs, is_real, state, initial)
        return net(last.weights, inputs.queries), last


class LooksAheadSecretly(HebbianRule):
    """The future shows less than the tolerance would tell."""

    def chunk(self, net, inputs, *args):
        reads, state = super().chunk(net, inputs, *args)
        return reads + 1e-14 * jnp.sum(inputs.values), state


class WritesPadding(HebbianRule):
    """The gate of padding is open, and what is real is not looked at."""

    def gate_specs(self, net):
        write = GateSpec(size=1, start=0.1, neutral=1.0)
        return {**super().gate_specs(net), "write": write}

    def chunk(self, net, inputs, is_real, state, initial):
        everything = jnp.ones_like(is_real)
        return super().chunk(net, inputs, everything, state, initial)


class StopsGradient(HebbianRule):
    """The fast form does not train what makes the values."""

    def chunk(self, net, inputs, *args):
        cut = jax.lax.stop_gradient(inputs.values)
        inputs = eqx.tree_at(lambda inputs: inputs.values, inputs, cut)
        return super().chunk(net, inputs, *args)


class IgnoresItsPlace(HebbianRule):
    """A chunk that starts anew instead of going on from where the stream stands."""

    def chunk(self, net, inputs, is_real, state, initial):
        state = eqx.tree_at(lambda state: state.weights, state, initial)
        return super().chunk(net, inputs, is_real, state, initial)


class NotANumber(HebbianRule):
    """Both forms agree, on nothing."""

    def step(self, *args):
        reads, state = super().step(*args)
        return reads * jnp.nan, state

    def chunk(self, *args):
        reads, state = super().chunk(*args)
        return reads * jnp.nan, state


class WrongMap(DeltaRule):
    """Its chunk is right, its map forgets what keys change."""

    def chunk_map(self, net, prepared):
        chunk = super().chunk_map(net, prepared)
        return AffineMap(chunk.kept, 0 * chunk.change, chunk.offset)


WRONG = {
    WrongFactor: r"chunk and step differ by .* at 0, allowed: 1e-10",
    WrongState: r"chunk and step differ by .* at 0",
    LooksAhead: r"chunk and step differ by .* at 0",
    LooksAheadSecretly: r"LooksAheadSecretly is not causal.*values of later tokens",
    WritesPadding: r"states beside two paddings differ by .* at weights",
    StopsGradient: r"gradients of chunk and step differ by .* at 0\.values",
    IgnoresItsPlace: r"differ by",
    NotANumber: r"chunk and step differ by nan",
    WrongMap: r"chunk_map and chunk differ by",
}


@pytest.mark.parametrize(
    ("rule", "message"), WRONG.items(), ids=[rule.__name__ for rule in WRONG]
)
def test_wrong_rules_fail(x64, rule, message):
    with pytest.raises(AssertionError, match=message):
        check_rule(rule(chunk_len=CHUNK))


class UsesItsMapTwice(MemoryNet):
    """The gradient of a map that is applied twice has two factors of each kind."""

    def forward(self, linear, x):
        return linear(0, jnp.tanh(linear(0, x)))


def test_a_wrong_network_fails(x64):
    with pytest.raises(AssertionError, match="rank-one factors and gradient .* at 0"):
        check_rule(TitansRule(chunk_len=CHUNK), UsesItsMapTwice(4, depth=1))


@pytest.mark.parametrize("chunk_len", [2, 4])
def test_causality_is_looked_at_whatever_the_chunk(x64, chunk_len):
    with pytest.raises(AssertionError, match="is not causal"):
        check_rule(LooksAheadSecretly(chunk_len=chunk_len))
