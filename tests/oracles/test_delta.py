"""The oracle of the delta rule, held to differences, hand and the Titans rule."""

from typing import Any

import numpy as np
import pytest

from tests.oracles.delta import delta_oracle
from tests.oracles.memory import memory_oracle, surprise_loss
from tests.oracles.problems import D, draw_tokens, draw_weights


@pytest.mark.parametrize("residual", [False, True])
def test_a_delta_write_is_the_gradient_at_the_weights_before_it(residual):
    """Held to central differences of the loss, at a token in the middle of a stream."""
    rng = np.random.default_rng(10)
    queries, keys, values, decay, momentum, step = draw_tokens(rng, 3, 1)
    (start,) = draw_weights(rng, 1)
    tokens = (queries, keys, values, decay[:, 0], momentum[:, 0], step[:, 0])
    before = delta_oracle(start, *(x[:2] for x in tokens), residual=residual)
    after = delta_oracle(start, *tokens, residual=residual)
    written = momentum[2, 0] * before.velocity - after.velocity
    width = 1e-5
    for index in np.ndindex(start.shape):
        losses = []
        for move in (width, -width):
            matrix = before.weights.copy()
            matrix[index] += move
            network: Any = {"residual": residual, "norm": False}
            losses.append(surprise_loss([matrix], keys[2], values[2], **network))
        slope = (losses[0] - losses[1]) / (2 * width)
        np.testing.assert_allclose(
            written[index], step[2, 0] * slope, rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize("read", ["after", "before"])
@pytest.mark.parametrize("residual", [False, True])
def test_delta_rule_is_the_titans_rule_of_a_linear_memory_without_staleness(
    residual, read
):
    rng = np.random.default_rng(11)
    queries, keys, values, decay, momentum, step = draw_tokens(rng, 7, 1)
    start, velocity = draw_weights(rng, 1) + draw_weights(rng, 1)
    titans = memory_oracle(
        [start],
        queries,
        keys,
        values,
        decay,
        momentum,
        step,
        chunk_len=1,
        residual=residual,
        norm=False,
        surprise_state=[velocity],
        read=read,
    )
    delta = delta_oracle(
        start,
        queries,
        keys,
        values,
        decay[:, 0],
        momentum[:, 0],
        step[:, 0],
        velocity=velocity,
        residual=residual,
        read=read,
    )
    np.testing.assert_allclose(delta.reads, titans.reads, atol=1e-13)
    np.testing.assert_allclose(delta.weights, titans.weights[0], atol=1e-13)
    np.testing.assert_allclose(delta.velocity, titans.momentum_state[0], atol=1e-13)


def test_delta_rule_without_momentum_erases_and_writes():
    """Gated DeltaNet, but for the error, which is taken before the decay."""
    rng = np.random.default_rng(12)
    queries, keys, values, decay, _, step = draw_tokens(rng, 6, 1)
    (start,) = draw_weights(rng, 1)
    none = np.zeros(6)
    result = delta_oracle(
        start,
        queries,
        keys,
        values,
        decay[:, 0],
        none,
        step[:, 0],
        residual=False,
    )
    matrix = start
    for t in range(6):
        key = keys[t][:, None]
        erase = (1 - decay[t, 0]) * np.eye(D) - step[t, 0] * key @ key.T
        matrix = erase @ matrix + step[t, 0] * key @ values[t][None, :]
        np.testing.assert_allclose(result.reads[t], queries[t] @ matrix, atol=1e-12)


def test_an_unknown_option_of_the_delta_rule_is_refused():
    none = np.zeros(1)
    with pytest.raises(ValueError, match="unknown option"):
        delta_oracle(np.eye(D), *np.zeros((3, 1, D)), none, none, none, read="during")
