"""The layer oracles, held to cases done by hand."""

import math
from typing import Any

import numpy as np
import pytest

from tests.oracles import blocks as oracle

D = 4


def test_norms_by_hand():
    x = np.array([[3.0, 4.0]])
    mean_square = oracle.rms_norm(x, np.array([1.0, 2.0]), eps=0.0)
    np.testing.assert_allclose(mean_square, [[3, 8]] / np.sqrt(12.5))
    np.testing.assert_allclose(oracle.unit_norm(x, eps=0.0), [[0.6, 0.8]])
    assert not oracle.unit_norm(np.zeros((1, 3))).any()


def test_silu_and_swiglu_by_hand():
    x = np.array([math.log(3.0)])
    np.testing.assert_allclose(oracle.silu(x), 0.75 * x)
    np.testing.assert_allclose(oracle.silu(np.array([-1e4, 1e4])), [0.0, 1e4])
    one = np.ones((1, 1))
    np.testing.assert_allclose(
        oracle.swiglu(x, one, 2 * one, 3 * one), 0.75 * x * 2 * x * 3
    )


def test_conv_weights_the_current_token_with_the_last_row_of_the_kernel():
    x = np.array([[1.0], [10.0], [100.0]])
    kernel = np.array([[2.0], [3.0], [5.0]])
    np.testing.assert_allclose(oracle.causal_conv(x, kernel)[:, 0], [5, 53, 532])
    conv_state = np.array([[0.1], [0.2]])
    np.testing.assert_allclose(
        oracle.causal_conv(x, kernel, conv_state)[:, 0], [5.8, 53.4, 532]
    )


def test_conv_of_the_rest_with_its_state_is_the_end_of_the_whole():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(9, 3)), rng.normal(size=(4, 3))
    whole = oracle.causal_conv(x, kernel)
    tail = oracle.causal_conv(x[5:], kernel, conv_state=x[2:5])
    np.testing.assert_allclose(tail, whole[5:])


def test_rotation_by_hand_and_by_relative_position():
    quarter = oracle.rotate(np.array([1.0, 0, 0, 0]), 1, base=10_000.0)
    np.testing.assert_allclose(quarter, [math.cos(1), 0, math.sin(1), 0], atol=1e-15)
    slow = oracle.rotate(np.array([0.0, 1, 0, 0]), 3, base=10_000.0)
    np.testing.assert_allclose(slow, [0, math.cos(0.03), 0, math.sin(0.03)], atol=1e-15)
    rng = np.random.default_rng(1)
    query, key = rng.normal(size=(2, 8))
    near = oracle.rotate(query, 5) @ oracle.rotate(key, 2)
    far = oracle.rotate(query, 105) @ oracle.rotate(key, 102)
    np.testing.assert_allclose(near, far)


def test_attention_by_hand():
    keys, values = [np.zeros(D), np.full(D, 2.0)], [np.zeros(2), np.ones(2)]
    # Scores 0 and 4 / sqrt(4) * log(3) / 2 = log 3, so weights 1/4 and 3/4.
    query = np.full(D, math.log(3) / 4)
    np.testing.assert_allclose(oracle.attend(query, keys, values), [0.75, 0.75])


def sees(function, seq, argument, arguments, **options):
    """Matrix [i, j]: does output i change with row j of the named argument?"""
    base = function(**arguments, **options)
    rows = len(arguments[argument])
    seen = np.zeros((seq, rows), dtype=bool)
    for j in range(rows):
        changed = {name: array.copy() for name, array in arguments.items()}
        changed[argument][j] += 1.0
        seen[:, j] = np.any(function(**changed, **options) != base, axis=1)
    return seen


@pytest.mark.parametrize("argument", ["keys", "values"])
@pytest.mark.parametrize("window", [1, 3, 20])
def test_sliding_attention_sees_its_window_and_every_persistent_token(argument, window):
    seq = 7
    rng = np.random.default_rng(2)
    arguments = {name: rng.normal(size=(seq, D)) for name in ("queries", "keys")}
    arguments["values"] = rng.normal(size=(seq, D))
    for name in ("persistent_keys", "persistent_values"):
        arguments[name] = rng.normal(size=(2, D))
    distance = np.arange(seq)[:, None] - np.arange(seq)
    seen = sees(oracle.sliding_attention, seq, argument, arguments, window=window)
    np.testing.assert_array_equal(seen, (distance >= 0) & (distance < window))
    persistent = f"persistent_{argument}"
    assert sees(
        oracle.sliding_attention, seq, persistent, arguments, window=window
    ).all()


def test_a_persistent_token_weighs_the_same_at_every_position():
    # All tokens are equal, so scores differ only by the persistent ones; with no key
    # but the own token (its angle cancels) every position must give the same output.
    rng = np.random.default_rng(6)
    row = rng.normal(size=(3, D))
    queries, keys, values = (np.tile(vector, (5, 1)) for vector in row)
    prefix = {
        "persistent_keys": rng.normal(size=(2, D)),
        "persistent_values": rng.normal(size=(2, D)),
    }
    out = oracle.sliding_attention(queries, keys, values, **prefix, window=1)
    np.testing.assert_allclose(out, np.tile(out[0], (5, 1)))
    by_hand = oracle.attend(
        queries[0],
        [*prefix["persistent_keys"], keys[0]],
        [*prefix["persistent_values"], values[0]],
    )
    np.testing.assert_allclose(out[0], by_hand)


SEGMENT_NAMES = ("queries", "keys", "values", "retrieved_keys", "retrieved_values")


def draw_segments(rng, seq, n_persistent):
    arguments: dict[str, Any] = {
        name: rng.normal(size=(seq, D)) for name in SEGMENT_NAMES
    }
    for name in ("persistent_keys", "persistent_values"):
        arguments[name] = rng.normal(size=(n_persistent, D))
    return arguments


@pytest.mark.parametrize("argument", SEGMENT_NAMES[1:])
def test_segment_attention_sees_its_segment_so_far(argument):
    seq, segment_len = 8, 3
    arguments = draw_segments(np.random.default_rng(3), seq, 2)
    options = {"segment_len": segment_len}
    i, j = np.arange(seq)[:, None], np.arange(seq)
    seen = sees(oracle.segment_attention, seq, argument, arguments, **options)
    expected = (j <= i) & (i // segment_len == j // segment_len)
    np.testing.assert_array_equal(seen, expected)
    for persistent in ("persistent_keys", "persistent_values"):
        assert sees(
            oracle.segment_attention, seq, persistent, arguments, **options
        ).all()


def test_segments_are_alike_and_apart():
    arguments = draw_segments(np.random.default_rng(4), 6, 0)
    repeated: dict[str, Any] = {
        name: array if name.startswith("persistent") else np.tile(array[:3], (2, 1))
        for name, array in arguments.items()
    }
    out = oracle.segment_attention(**repeated, segment_len=3)
    np.testing.assert_array_equal(out[:3], out[3:])


def test_a_retrieved_token_shares_the_position_of_its_token():
    # With h_j = x_j every pair is doubled, which leaves the mean where it was.
    arguments = draw_segments(np.random.default_rng(5), 5, 0)
    arguments["retrieved_keys"] = arguments["keys"]
    arguments["retrieved_values"] = arguments["values"]
    out = oracle.segment_attention(**arguments, segment_len=5)
    plain = oracle.sliding_attention(
        **{name: array for name, array in arguments.items() if "retr" not in name},
        window=5,
    )
    np.testing.assert_allclose(out, plain)
