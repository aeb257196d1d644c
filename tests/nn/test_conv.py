import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests.oracles import blocks as oracle
from titans_eqx.nn import CausalConv, ConvProjection, Padding

CHANNELS, N_TOKENS = 3, 9


def draw(getkey, kernel_size):
    conv = CausalConv(CHANNELS, kernel_size, key=getkey())
    return conv, jax.random.normal(getkey(), (N_TOKENS, CHANNELS))


@pytest.mark.parametrize("kernel_size", [1, 2, 4, 20])
def test_equals_the_oracle(x64, getkey, kernel_size):
    conv, x = draw(getkey, kernel_size)
    y, conv_state = conv(x, conv.init_state(), Padding.none(N_TOKENS))
    np.testing.assert_allclose(y, oracle.causal_conv(x, conv.kernel), atol=1e-12)
    before = np.concatenate([np.zeros((kernel_size - 1, CHANNELS)), x])
    np.testing.assert_array_equal(conv_state, before[N_TOKENS:])


@pytest.mark.parametrize("kernel_size", [1, 4])
def test_pieces_at_any_place_in_a_buffer_equal_the_whole(x64, getkey, kernel_size):
    conv, x = draw(getkey, kernel_size)
    whole, last = conv(x, conv.init_state(), Padding.none(N_TOKENS))
    run = eqx.filter_jit(conv)
    conv_state, parts = conv.init_state(), []
    # Shorter than the kernel, no token at all, and the rest.
    for first, stop, offset in ((0, 2, 5), (2, 2, 0), (2, 9, 1)):
        padding = Padding.aligned(stop - first, jnp.asarray(offset), 8)
        # What lies beside the real positions must not matter, so it is not zero.
        positions = padding.merge(
            padding.pad(x[first:stop]), jnp.full((padding.length, CHANNELS), 7.0)
        )
        y, conv_state = run(positions, conv_state, padding)
        parts.append(padding.unpad(y, stop - first))
    np.testing.assert_allclose(jnp.concatenate(parts), whole, atol=1e-12)
    np.testing.assert_array_equal(conv_state, last)


def test_starts_near_the_identity(getkey):
    conv = CausalConv(1000, 4, key=getkey())
    np.testing.assert_allclose(jnp.mean(conv.kernel, axis=1), [0, 0, 0, 1], atol=0.03)
    assert np.all(jnp.std(conv.kernel, axis=1) < 0.2)
    conv = CausalConv(1000, 4, delay=1, key=getkey())
    np.testing.assert_allclose(jnp.mean(conv.kernel, axis=1), [0, 0, 1, 0], atol=0.03)


def test_may_start_at_a_mix_of_all_tokens(getkey):
    kernel = CausalConv(10_000, 4, start="context", key=getkey()).kernel
    sizes = jnp.mean(jnp.square(kernel), axis=1)
    np.testing.assert_allclose(sizes, np.array([4, 9, 16, 25]) / 54, rtol=0.1)
    np.testing.assert_allclose(jnp.mean(kernel, axis=1), np.zeros(4), atol=0.03)


def test_projection_is_linear_then_conv_then_silu(x64, getkey):
    projection = ConvProjection(CHANNELS, 4, key=getkey())
    _, x = draw(getkey, 4)
    y, conv_state = projection(x, projection.conv.init_state(), Padding.none(N_TOKENS))
    rows = np.asarray(x) @ np.asarray(projection.linear.weight).T
    expected = oracle.silu(oracle.causal_conv(rows, projection.conv.kernel))
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_allclose(conv_state, rows[-3:], atol=1e-12)


def test_a_projection_without_activation_is_linear(x64, getkey):
    projection = ConvProjection(CHANNELS, 4, activation="none", key=getkey())
    _, x = draw(getkey, 4)
    y, _ = projection(x, projection.conv.init_state(), Padding.none(N_TOKENS))
    rows = np.asarray(x) @ np.asarray(projection.linear.weight).T
    expected = oracle.causal_conv(rows, projection.conv.kernel)
    np.testing.assert_allclose(y, expected, atol=1e-12)


def test_bad_sizes_are_refused(getkey):
    with pytest.raises(ValueError, match="kernel_size=0"):
        CausalConv(CHANNELS, 0, key=getkey())
    with pytest.raises(ValueError, match="delay=4 with kernel_size=4"):
        CausalConv(CHANNELS, 4, delay=4, key=getkey())
    with pytest.raises(ValueError, match=r'0 with start="context", got delay=1'):
        CausalConv(CHANNELS, 4, start="context", delay=1, key=getkey())
    conv, x = draw(getkey, 4)
    with pytest.raises(TypeCheckError):
        conv(x[:, :2], conv.init_state(), Padding.none(N_TOKENS))
