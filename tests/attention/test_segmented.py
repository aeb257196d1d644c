import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.attention.small import BASE, D_MODEL, draw_attention
from tests.oracles import attention as oracle
from tests.oracles.parameters import parameters
from titans_eqx.attention import SegmentAttention
from titans_eqx.nn import Padding

SEGMENT = 5
call = eqx.filter_jit(lambda attention, *arguments: attention(*arguments))
step = eqx.filter_jit(lambda attention, *arguments: attention.step(*arguments))


def draw(getkey, *, n_persistent=2, kernel_size=1):
    parts = draw_attention(getkey, n_persistent=n_persistent, kernel_size=kernel_size)
    attention = SegmentAttention(*parts, SEGMENT)
    x, memories = 2 * jax.random.normal(getkey(), (2, SEGMENT, D_MODEL))
    return attention, x, memories


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("n_persistent", [0, 2])
def test_equals_the_oracle(x64, getkey, n_persistent, kernel_size):
    """Also for a segment after another, of whose tokens the convolutions see some."""
    attention, x, memories = draw(
        getkey, n_persistent=n_persistent, kernel_size=kernel_size
    )
    cache, before = attention.init_state(), np.asarray(x[:0])
    for tokens in (x, x[::-1]):
        y, cache = call(attention, tokens, memories, cache, Padding.none(SEGMENT))
        expected = oracle.segment_attention(
            parameters(attention),
            np.asarray(tokens),
            np.asarray(memories),
            before,
            n_heads=2,
            base=BASE,
        )
        np.testing.assert_allclose(y, expected, atol=1e-10)
        before = np.asarray(tokens)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_pieces_and_steps_equal_the_whole(x64, getkey, kernel_size):
    attention, x, memories = draw(getkey, kernel_size=kernel_size)
    empty = attention.init_state()
    whole, full = call(attention, x, memories, empty, Padding.none(SEGMENT))

    cache, parts = empty, []
    for start, stop in ((0, 2), (2, 3), (3, 5)):
        padding = Padding(jnp.asarray(start), jnp.asarray(stop), SEGMENT, is_none=False)
        # What lies at padding must not matter, so it is not zero.
        noise = jnp.full((SEGMENT, D_MODEL), 9.0)
        rows = padding.merge((x, memories), (noise, noise))
        y, cache = call(attention, *rows, cache, padding)
        parts.append(y[start:stop])
    np.testing.assert_allclose(jnp.concatenate(parts), whole, atol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), cache, full)

    cache, parts = empty, []
    for i in range(SEGMENT):
        y, cache = step(attention, x[i], memories[i], cache, jnp.asarray(i))
        parts.append(y)
    np.testing.assert_allclose(jnp.stack(parts), whole, atol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), cache, full)


@pytest.mark.parametrize("argument", [0, 1], ids=["tokens", "memories"])
def test_sees_tokens_and_memories_of_its_past_only(getkey, argument):
    attention, x, memories = draw(getkey)
    padding, empty = Padding.none(SEGMENT), attention.init_state()

    def output(x, memories):
        return attention(x, memories, empty, padding)[0]

    slopes = jax.jit(jax.jacobian(output, argnums=argument))(x, memories)
    influence = np.abs(slopes).sum(axis=(1, 3))
    np.testing.assert_array_equal(influence > 0, np.tri(SEGMENT, dtype=bool))


def test_what_an_earlier_segment_left_in_the_cache_is_not_seen(getkey):
    attention, x, memories = draw(getkey)
    used = jax.tree.map(lambda a: jnp.full_like(a, 3.0), attention.init_state())
    first = jnp.asarray(0)
    fresh = step(attention, x[0], memories[0], attention.init_state(), first)
    again = step(attention, x[0], memories[0], used, first)
    np.testing.assert_array_equal(fresh[0], again[0])


def test_a_segment_without_tokens_is_refused(getkey):
    parts = draw_attention(getkey, n_persistent=0, kernel_size=1)
    with pytest.raises(ValueError, match="at least 1, got segment_len=0"):
        SegmentAttention(*parts, 0)


def test_dtype_is_kept(getkey):
    attention, x, memories = jax.tree.map(
        lambda a: a.astype(jnp.bfloat16), draw(getkey)
    )
    y, cache = attention(x, memories, attention.init_state(), Padding.none(SEGMENT))
    assert y.dtype == cache.token_keys.dtype == jnp.bfloat16
    y, cache = attention.step(x[0], memories[0], cache, jnp.asarray(0))
    assert y.dtype == cache.token_keys.dtype == jnp.bfloat16
