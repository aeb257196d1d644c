import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests import block_oracles as oracle
from titans_eqx.nn import CausalConv, ConvProjection, Span

CHANNELS, N_TOKENS = 3, 9


def draw(getkey, taps):
    conv = CausalConv(CHANNELS, taps, key=getkey())
    return conv, jax.random.normal(getkey(), (N_TOKENS, CHANNELS))


@pytest.mark.parametrize("taps", [1, 2, 4, 20])
def test_equals_the_oracle(x64, getkey, taps):
    conv, x = draw(getkey, taps)
    y, carried = conv(x, conv.init_state(), Span.whole(N_TOKENS))
    np.testing.assert_allclose(y, oracle.causal_conv(x, conv.kernel), atol=1e-12)
    before = np.concatenate([np.zeros((taps - 1, CHANNELS)), x])
    np.testing.assert_array_equal(carried, before[N_TOKENS:])


@pytest.mark.parametrize("taps", [1, 4])
def test_pieces_at_any_place_in_a_buffer_equal_the_whole(x64, getkey, taps):
    conv, x = draw(getkey, taps)
    whole, last = conv(x, conv.init_state(), Span.whole(N_TOKENS))
    run = eqx.filter_jit(conv)
    carried, parts = conv.init_state(), []
    # Shorter than the kernel, no token at all, and the rest.
    for first, stop, place in ((0, 2, 5), (2, 2, 0), (2, 9, 1)):
        span = Span.placed(stop - first, jnp.asarray(place), 8)
        # What lies beside the real slots must not matter, so it is not zero.
        slots = span.overlay(
            span.place(x[first:stop]), jnp.full((span.length, CHANNELS), 7.0)
        )
        y, carried = run(slots, carried, span)
        parts.append(span.take(y, stop - first))
    np.testing.assert_allclose(jnp.concatenate(parts), whole, atol=1e-12)
    np.testing.assert_array_equal(carried, last)


def test_starts_near_the_identity(getkey):
    conv = CausalConv(1000, 4, key=getkey())
    np.testing.assert_allclose(jnp.mean(conv.kernel, axis=1), [0, 0, 0, 1], atol=0.03)
    assert np.all(jnp.std(conv.kernel, axis=1) < 0.2)


def test_projection_is_linear_then_conv_then_silu(x64, getkey):
    projection = ConvProjection(CHANNELS, 4, key=getkey())
    _, x = draw(getkey, 4)
    y, carried = projection(x, projection.init_state(), Span.whole(N_TOKENS))
    rows = np.asarray(x) @ np.asarray(projection.linear.weight).T
    expected = oracle.silu(oracle.causal_conv(rows, projection.conv.kernel))
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_allclose(carried, rows[-3:], atol=1e-12)


def test_bad_sizes_are_refused(getkey):
    with pytest.raises(ValueError, match="taps must be at least 1, got taps=0"):
        CausalConv(CHANNELS, 0, key=getkey())
    conv, x = draw(getkey, 4)
    with pytest.raises(TypeCheckError):
        conv(x[:, :2], conv.init_state(), Span.whole(N_TOKENS))
