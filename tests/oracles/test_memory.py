"""The oracles themselves, held to central differences and to cases done by hand."""

import ast
import inspect
import math
from typing import Any

import numpy as np
import pytest

from tests.oracles import blocks, delta, memory
from tests.oracles.memory import (
    memory_oracle,
    surprise,
    surprise_loss,
)
from tests.oracles.problems import D, draw_tokens, draw_weights

PLAIN: dict[str, Any] = {"residual": False, "norm": False}


@pytest.mark.parametrize("module", [memory, delta, blocks])
def test_oracles_import_only_numpy_and_the_standard_library(module):
    names = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    assert names <= {"math", "collections.abc", "typing", "numpy"}


@pytest.mark.parametrize("gelu", ["tanh", "exact"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_surprise_equals_central_differences(depth, residual, norm, gelu):
    rng = np.random.default_rng(depth)
    weights = draw_weights(rng, depth)
    key, value = rng.normal(size=(2, D))
    network: Any = {"residual": residual, "norm": norm, "gelu": gelu}
    gradients = surprise(weights, key, value, **network)
    width = 1e-5
    for layer, matrix in enumerate(weights):
        for index in np.ndindex(matrix.shape):
            middle = matrix[index]
            matrix[index] = middle + width
            above = surprise_loss(weights, key, value, **network)
            matrix[index] = middle - width
            below = surprise_loss(weights, key, value, **network)
            matrix[index] = middle
            slope = (above - below) / (2 * width)
            np.testing.assert_allclose(
                gradients[layer][index], slope, rtol=1e-6, atol=1e-8
            )


def test_gelus_have_known_values():
    x = np.array([-1.0, 0.0, 1.0])
    below_one = 0.8413447460685429  # standard normal distribution function at 1
    np.testing.assert_allclose(
        memory.gelu_exact(x), [below_one - 1, 0, below_one], atol=1e-15
    )
    np.testing.assert_allclose(memory.gelu_tanh(x), memory.gelu_exact(x), atol=2e-4)
    assert np.abs(memory.gelu_tanh(x) - memory.gelu_exact(x)).max() > 1e-5


def test_linear_memory_without_momentum_or_decay_is_the_delta_rule():
    rng = np.random.default_rng(0)
    seq = 7
    queries, keys, values, _, _, step = draw_tokens(rng, seq, 1)
    (start,) = draw_weights(rng, 1)
    none = np.zeros((seq, 1))
    result = memory_oracle(
        [start], queries, keys, values, none, none, step, chunk_len=1, **PLAIN
    )
    matrix = start
    for t in range(seq):
        key = keys[t][:, None]
        erase = np.eye(D) - step[t, 0] * key @ key.T
        matrix = erase @ matrix + step[t, 0] * key @ values[t][None, :]
        np.testing.assert_allclose(result.reads[t], queries[t] @ matrix, atol=1e-12)
    np.testing.assert_allclose(result.weights[0], matrix, atol=1e-12)


def test_unit_step_stores_a_unit_key_exactly():
    rng = np.random.default_rng(1)
    key, value = rng.normal(size=(2, D))
    key /= np.linalg.norm(key)
    zero, one = np.zeros((1, 1)), np.ones((1, 1))
    result = memory_oracle(
        draw_weights(rng, 1),
        key[None],
        key[None],
        value[None],
        zero,
        zero,
        one,
        chunk_len=1,
        **PLAIN,
    )
    np.testing.assert_allclose(result.reads[0], value, atol=1e-12)


@pytest.mark.parametrize("towards", ["zero", "initial"])
def test_full_decay_leaves_the_target_and_the_last_surprise(towards):
    rng = np.random.default_rng(2)
    queries, keys, values, decay, momentum, step = draw_tokens(rng, 5, 2)
    decay[-1] = 1.0
    start, initial = draw_weights(rng, 2), draw_weights(rng, 2)
    result = memory_oracle(
        start,
        queries,
        keys,
        values,
        decay,
        momentum,
        step,
        chunk_len=2,
        decay_towards=towards,
        initial=initial,
    )
    for layer in range(2):
        left = result.momentum_state[layer]
        if towards == "initial":
            left = left + initial[layer]
        np.testing.assert_allclose(result.weights[layer], left, atol=1e-15)


def test_no_step_leaves_the_weights_to_decay_alone():
    rng = np.random.default_rng(3)
    queries, keys, values, decay, momentum, step = draw_tokens(rng, 6, 2)
    start = draw_weights(rng, 2)
    result = memory_oracle(
        start, queries, keys, values, decay, momentum, 0 * step, chunk_len=4
    )
    kept = memory_oracle(
        start,
        queries,
        keys,
        values,
        decay,
        momentum,
        0 * step,
        chunk_len=4,
        decay_towards="initial",
    )
    for layer in range(2):
        left = np.prod(1 - decay[:, layer])
        np.testing.assert_allclose(result.weights[layer], left * start[layer])
        np.testing.assert_allclose(kept.weights[layer], start[layer])
        assert not result.momentum_state[layer].any()


def test_momentum_carries_past_surprise_by_hand():
    # A scalar memory in one chunk: every gradient is taken at w = 2.
    one = np.ones((2, 1))
    momentum, step, decay = 0.5 * one, 0.1 * one, np.array([[0.0], [0.25]])
    result = memory_oracle(
        [np.array([[2.0]])],
        one,
        one,
        np.array([[1.0], [-1.0]]),
        decay,
        momentum,
        step,
        chunk_len=2,
        **PLAIN,
    )
    # u = 1, 3; S = -0.1, -0.35; M = 1.9, 0.75 * 1.9 - 0.35.
    np.testing.assert_allclose(result.reads[:, 0], [1.9, 1.075])
    np.testing.assert_allclose(result.momentum_state[0], [[-0.35]])
    np.testing.assert_allclose(result.anchor[0], [[1.075]])
    assert result.phase == 0


def test_gradients_of_a_chunk_are_taken_at_its_anchor():
    rng = np.random.default_rng(4)
    queries, keys, values, _, _, step = draw_tokens(rng, 3, 2)
    start = draw_weights(rng, 2)
    none = np.zeros((3, 2))
    result = memory_oracle(start, queries, keys, values, none, none, step, chunk_len=8)
    for layer in range(2):
        expected = start[layer].copy()
        for t in range(3):
            gradient = surprise(start, keys[t], values[t])[layer]
            expected -= step[t, layer] * gradient
        np.testing.assert_allclose(result.weights[layer], expected, atol=1e-14)
        np.testing.assert_array_equal(result.anchor[layer], start[layer])
    assert result.phase == 3


@pytest.mark.parametrize("cut", [1, 3, 4, 7, 8])
@pytest.mark.parametrize("towards", ["zero", "initial"])
def test_split_and_carried_equals_whole(cut, towards):
    rng = np.random.default_rng(5)
    tokens = draw_tokens(rng, 10, 3)
    start = draw_weights(rng, 3)
    options: Any = {"chunk_len": 4, "clip": 0.5, "decay_towards": towards}
    options["initial"] = start
    whole = memory_oracle(start, *tokens, **options)
    head = memory_oracle(start, *(array[:cut] for array in tokens), **options)
    tail = memory_oracle(
        head.weights,
        *(array[cut:] for array in tokens),
        anchor=head.anchor,
        surprise_state=head.momentum_state,
        phase=head.phase,
        **options,
    )
    np.testing.assert_array_equal(np.concatenate([head.reads, tail.reads]), whole.reads)
    for field in ("weights", "momentum_state", "anchor"):
        for ours, theirs in zip(
            getattr(tail, field), getattr(whole, field), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    assert tail.phase == whole.phase


def test_read_before_is_the_read_of_the_previous_weights():
    rng = np.random.default_rng(6)
    tokens = draw_tokens(rng, 5, 2)
    start = draw_weights(rng, 2)
    before = memory_oracle(start, *tokens, chunk_len=2, read="before")
    np.testing.assert_allclose(
        before.reads[0], memory.memory_forward(start, tokens[0][0])
    )
    for t in range(1, 5):
        head = memory_oracle(start, *(array[:t] for array in tokens), chunk_len=2)
        expected = memory.memory_forward(head.weights, tokens[0][t])
        np.testing.assert_allclose(before.reads[t], expected)


def test_clip_bounds_the_written_norm_over_all_layers():
    rng = np.random.default_rng(7)
    queries, keys, values, _, _, _ = draw_tokens(rng, 1, 3)
    start = draw_weights(rng, 3)
    none, one = np.zeros((1, 3)), np.ones((1, 3))
    gradients = surprise(start, keys[0], values[0])
    total = math.sqrt(sum(np.sum(matrix**2) for matrix in gradients))
    for clip, written in ((total / 3, 1 / 3), (total * 3, 1.0), (None, 1.0)):
        result = memory_oracle(
            start, queries, keys, values, none, none, one, chunk_len=1, clip=clip
        )
        for layer in range(3):
            np.testing.assert_allclose(
                result.momentum_state[layer], -written * gradients[layer]
            )


def test_channel_decay_forgets_rows_and_contains_the_scalar_form():
    rng = np.random.default_rng(8)
    queries, keys, values, decay, momentum, step = draw_tokens(rng, 5, 2)
    start = draw_weights(rng, 2)
    rows = [
        np.repeat(decay[:, layer, None], len(start[layer]), axis=1)
        for layer in range(2)
    ]
    rest = (momentum, step)
    scalar = memory_oracle(start, queries, keys, values, decay, *rest, chunk_len=2)
    channel = memory_oracle(start, queries, keys, values, rows, *rest, chunk_len=2)
    np.testing.assert_array_equal(scalar.reads, channel.reads)

    rows = [np.zeros_like(array) for array in rows]
    rows[0][-1, 1] = 1.0
    rest = (momentum, 0 * step)
    wiped = memory_oracle(start, queries, keys, values, rows, *rest, chunk_len=2)
    expected = start[0].copy()
    expected[1] = 0.0
    np.testing.assert_array_equal(wiped.weights[0], expected)
    np.testing.assert_array_equal(wiped.weights[1], start[1])


BAD_OPTIONS = {
    "target": {"decay_towards": "one"},
    "read": {"read": "during"},
    "phase_too_large": {"phase": 2, "anchor": [np.eye(D)]},
    "phase_without_anchor": {"phase": 1},
}


@pytest.mark.parametrize("options", BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options_are_refused(options):
    tokens = draw_tokens(np.random.default_rng(9), 2, 1)
    with pytest.raises(ValueError, match="unknown option|needs an anchor"):
        memory_oracle([np.eye(D)], *tokens, chunk_len=2, **options)
