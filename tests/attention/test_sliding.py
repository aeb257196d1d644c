import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests import block_oracles as oracle
from tests.oracles.attention_columns import columns, joined
from titans_eqx.attention.sliding import SlidingAttention

D_MODEL, WINDOW, BASE = 8, 5, 100.0
call = eqx.filter_jit(lambda attention, x, cache: attention(x, cache))
step = eqx.filter_jit(lambda attention, x, cache: attention.step(x, cache))


def draw(getkey, n_tokens, *, n_persistent=2, window=WINDOW):
    attention = SlidingAttention(D_MODEL, 2, n_persistent, window, BASE, key=getkey())
    return attention, 2 * jax.random.normal(getkey(), (n_tokens, D_MODEL))


@pytest.mark.parametrize("n_persistent", [0, 2])
@pytest.mark.parametrize("n_tokens", [1, 4, 5, 13])
def test_equals_the_oracle(x64, getkey, n_tokens, n_persistent):
    """For less than a window, one window, and many with a part left over."""
    attention, x = draw(getkey, n_tokens, n_persistent=n_persistent)
    y, _ = call(attention, x, None)
    heads = attention.heads
    expected = [
        oracle.sliding_attention(*head, window=WINDOW, base=BASE)
        for head in columns(heads, x)
    ]
    np.testing.assert_allclose(y, joined(heads, expected), atol=1e-10)


def test_pieces_and_steps_equal_the_whole(x64, getkey):
    attention, x = draw(getkey, 13)
    whole, last = call(attention, x, None)

    cache, parts = attention.init_state(), []
    # Into the first window, over its end, more than a window at once.
    for start, stop in ((0, 3), (3, 6), (6, 13)):
        y, cache = call(attention, x[start:stop], cache)
        parts.append(y)
    np.testing.assert_allclose(jnp.concatenate(parts), whole, atol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), cache, last)

    cache, parts = attention.init_state(), []
    for row in x:
        y, cache = step(attention, row, cache)
        parts.append(y)
    np.testing.assert_allclose(jnp.stack(parts), whole, atol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), cache, last)


def test_sees_its_window_and_nothing_else(getkey):
    attention, x = draw(getkey, 13, n_persistent=1)
    slopes = jax.jit(jax.jacobian(lambda x: attention(x)[0]))(x)
    influence = np.abs(slopes).sum(axis=(1, 3))
    distance = np.arange(13)[:, None] - np.arange(13)
    np.testing.assert_array_equal(influence > 0, (distance >= 0) & (distance < WINDOW))


def test_a_window_as_long_as_the_sequence_is_full_attention(getkey):
    attention, x = draw(getkey, 13, window=13)
    slopes = jax.jit(jax.jacobian(lambda x: attention(x)[0]))(x)
    influence = np.abs(slopes).sum(axis=(1, 3))
    np.testing.assert_array_equal(influence > 0, np.tril(np.ones((13, 13), bool)))


def test_the_cache_keeps_its_size_and_counts_no_further_than_a_window(getkey):
    attention, x = draw(getkey, 13)
    _, cache = call(attention, x, None)
    assert int(cache.n_cached) == WINDOW
    sizes = jax.tree.map(jnp.shape, cache)
    assert sizes == jax.tree.map(jnp.shape, attention.init_state())
    np.testing.assert_array_equal(cache.values, attention.heads.values(x)[-WINDOW:])


def test_work_grows_linearly_with_length(getkey):
    attention, _ = draw(getkey, 1)

    def flops(n_windows):
        x = jnp.zeros((n_windows * WINDOW, D_MODEL))
        compiled = jax.jit(lambda x: attention(x)[0]).lower(x).compile()
        return compiled.cost_analysis()["flops"]

    assert flops(32) / flops(16) < 2.2


def test_dtype_is_kept(getkey):
    attention, x = draw(getkey, 7)
    attention, x = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (attention, x))
    y, cache = attention(x, None)
    assert y.dtype == cache.keys.dtype == jnp.bfloat16
    y, cache = attention.step(x[0], cache)
    assert y.dtype == cache.keys.dtype == jnp.bfloat16


def test_bad_sizes_are_refused(getkey):
    for n_heads in (3, 8):
        with pytest.raises(ValueError, match=rf"n_heads={n_heads} and d_model=8"):
            SlidingAttention(D_MODEL, n_heads, 0, WINDOW, BASE, key=getkey())
    attention, x = draw(getkey, 3)
    with pytest.raises((TypeCheckError, TypeError)):
        attention(x[:, :6])
