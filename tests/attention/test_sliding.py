import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tests.attention.small import BASE, D_MODEL, draw_attention
from tests.oracles import attention as oracle
from tests.oracles.parameters import parameters
from titans_eqx.attention import AttentionHeads, SlidingAttention, attention_convs
from titans_eqx.nn.flops import count_flops
from titans_eqx.nn.linear import linear_rows

WINDOW = 5
call = eqx.filter_jit(lambda attention, x, cache: attention(x, cache))
step = eqx.filter_jit(lambda attention, x, cache: attention.step(x, cache))


def draw(getkey, n_tokens, *, n_persistent=2, window=WINDOW, kernel_size=1):
    parts = draw_attention(getkey, n_persistent=n_persistent, kernel_size=kernel_size)
    x = 2 * jax.random.normal(getkey(), (n_tokens, D_MODEL))
    return SlidingAttention(*parts, window), x


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("n_persistent", [0, 2])
@pytest.mark.parametrize("n_tokens", [1, 4, 5, 13])
def test_equals_the_oracle(x64, getkey, n_tokens, n_persistent, kernel_size):
    """For less than a window, one window, and many with a part left over."""
    attention, x = draw(
        getkey, n_tokens, n_persistent=n_persistent, kernel_size=kernel_size
    )
    y, _ = call(attention, x, None)
    expected = oracle.sliding_attention(
        parameters(attention), np.asarray(x), n_heads=2, window=WINDOW, base=BASE
    )
    np.testing.assert_allclose(y, expected, atol=1e-10)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_pieces_and_steps_equal_the_whole(x64, getkey, kernel_size):
    attention, x = draw(getkey, 13, kernel_size=kernel_size)
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


@pytest.mark.parametrize("window", [1, WINDOW])
def test_steps_and_pieces_may_take_turns(x64, getkey, window):
    """With the ring anywhere in its turns, also one of a single slot."""
    attention, x = draw(getkey, 14, window=window)
    whole, _ = call(attention, x, None)
    parts, cache = [], attention.init_state()
    for start in (0, 7):
        y, cache = call(attention, x[start : start + 4], cache)
        parts.append(y)
        for row in x[start + 4 : start + 7]:
            y, cache = step(attention, row, cache)
            parts.append(y[None])
    np.testing.assert_allclose(jnp.concatenate(parts), whole, atol=1e-12)


@pytest.mark.parametrize(
    "read", [step, lambda a, row, cache: call(a, row[None], cache)]
)
def test_a_cached_key_is_never_rotated_again(getkey, read):
    """Or half precision would lose a little of it with every token."""
    attention, x = jax.tree.map(lambda a: a.astype(jnp.bfloat16), draw(getkey, 8))
    _, before = call(attention, x[:7], None)
    _, after = read(attention, x[7], before)
    is_same = np.asarray(before.keys == after.keys).all(axis=(0, 2))
    np.testing.assert_array_equal(is_same, np.arange(WINDOW) != 7 % WINDOW)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_sees_its_window_and_nothing_else(getkey, kernel_size):
    """The convolutions see that much before the first token of the window."""
    attention, x = draw(getkey, 13, n_persistent=1, kernel_size=kernel_size)
    slopes = jax.jit(jax.jacobian(lambda x: attention(x)[0]))(x)
    influence = np.abs(slopes).sum(axis=(1, 3))
    distance = np.arange(13)[:, None] - np.arange(13)
    is_seen = (distance >= 0) & (distance < WINDOW + kernel_size - 1)
    np.testing.assert_array_equal(influence > 0, is_seen)


def test_a_window_as_long_as_the_sequence_is_full_attention(getkey):
    attention, x = draw(getkey, 13, window=13)
    slopes = jax.jit(jax.jacobian(lambda x: attention(x)[0]))(x)
    influence = np.abs(slopes).sum(axis=(1, 3))
    np.testing.assert_array_equal(influence > 0, np.tril(np.ones((13, 13), bool)))


def test_the_cache_keeps_its_size_and_counts_no_further_than_two_windows(getkey):
    # Of few digits, so that no order of the sums rounds.
    attention, x = jax.tree.map(lambda a: jnp.round(4 * a) / 4, draw(getkey, 13))
    _, cache = call(attention, x, None)
    assert int(cache.n_read) == WINDOW + 13 % WINDOW
    sizes = jax.tree.map(jnp.shape, cache)
    assert sizes == jax.tree.map(jnp.shape, attention.init_state())
    heads = attention.heads
    values = heads.split(linear_rows(heads.value_projection, x))
    slots = np.arange(13 - WINDOW, 13) % WINDOW
    in_order = jnp.moveaxis(cache.values, 1, 0)[slots]
    np.testing.assert_array_equal(in_order, values[-WINDOW:])


def test_work_grows_linearly_with_length(getkey):
    attention, _ = draw(getkey, 1)

    def flops(n_windows):
        x = jnp.zeros((n_windows * WINDOW, D_MODEL))
        compiled = jax.jit(lambda x: attention(x)[0]).lower(x).compile()
        return compiled.cost_analysis()["flops"]

    assert flops(32) / flops(16) < 2.2


def test_work_grows_with_the_tokens_read_not_with_the_window_alone(getkey):
    window = 64
    attention, x = draw(getkey, window, window=window)
    cache = attention.init_state()
    assert count_flops(attention, x, cache) > 32 * count_flops(attention, x[:1], cache)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_dtype_is_kept(getkey, kernel_size):
    attention, x = draw(getkey, 7, kernel_size=kernel_size)
    attention, x = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (attention, x))
    y, cache = attention(x, None)
    assert y.dtype == cache.keys.dtype == jnp.bfloat16
    y, cache = attention.step(x[0], cache)
    assert y.dtype == cache.keys.dtype == jnp.bfloat16


def test_bad_sizes_are_refused(getkey):
    for n_heads in (0, 3, 8):
        with pytest.raises(ValueError, match=rf"n_heads={n_heads} and d_model=8"):
            AttentionHeads(D_MODEL, n_heads=n_heads, key=getkey())
    with pytest.raises(ValueError, match="at least 1, got window=0"):
        draw(getkey, 3, window=0)
    attention, x = draw(getkey, 3)
    with pytest.raises((TypeCheckError, TypeError)):
        attention(x[:, :6])


def test_keys_start_at_the_token_before(getkey):
    convs = attention_convs(D_MODEL, 3, key_delay=1, key=getkey())
    starts = [np.argmax(np.mean(conv.kernel, axis=1)) for conv in convs]
    assert starts == [2, 1, 2]
    with pytest.raises(ValueError, match="key_delay=1 with kernel_size=1"):
        attention_convs(D_MODEL, key_delay=1, key=getkey())
