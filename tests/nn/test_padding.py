import jax
import jax.numpy as jnp
import numpy as np
import pytest

from titans_eqx.nn import Padding

UNIT = 4
ROWS = np.arange(1.0, 25.0).reshape(12, 2)


def position(i):
    return jnp.asarray(i, jnp.int32)


@pytest.mark.parametrize("offset", range(UNIT))
@pytest.mark.parametrize("n_tokens", [1, 4, 5, 12])
def test_unpad_undoes_pad_at_every_offset(offset, n_tokens):
    rows = jnp.asarray(ROWS[:n_tokens])
    padding = Padding.aligned(n_tokens, jnp.asarray(offset), UNIT)
    assert padding.length % UNIT == 0
    positions = padding.pad(rows)
    expected = np.zeros((padding.length, 2))
    expected[offset : offset + n_tokens] = rows
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_array_equal(padding.is_real(), expected[:, 0] != 0)
    np.testing.assert_array_equal(padding.unpad(positions, n_tokens), rows)
    assert int(padding.n_real) == n_tokens
    assert int(padding.end) == offset + n_tokens


def test_one_compiled_function_serves_every_offset():
    @jax.jit
    def is_real(offset):
        return Padding.aligned(5, offset, UNIT).is_real()

    firsts = [np.flatnonzero(is_real(jnp.asarray(offset)))[0] for offset in range(UNIT)]
    assert firsts == list(range(UNIT))
    assert is_real._cache_size() == 1


def blocks(padding, length):
    return [
        padding.block(position(first), length)
        for first in range(0, padding.length, length)
    ]


def test_blocks_of_a_padded_buffer_are_its_real_positions_cut_up():
    padding = Padding.aligned(6, jnp.asarray(1), UNIT)
    parts = blocks(padding, UNIT)
    is_real = np.concatenate([part.is_real() for part in parts])
    np.testing.assert_array_equal(is_real, padding.is_real())
    assert not parts[-1].is_real().any(), "the last block is empty"


def test_blocks_count_their_own_tokens_and_those_before_them():
    """Of a block, the real positions may start before it or stop behind it."""
    padding = Padding(position(6), position(13), 20, is_none=False)
    parts = blocks(padding, UNIT)
    np.testing.assert_array_equal([part.n_real for part in parts], [0, 2, 4, 1, 0])
    np.testing.assert_array_equal(
        [part.n_real for part in parts], [part.is_real().sum() for part in parts]
    )
    np.testing.assert_array_equal([part.start for part in parts], [6, 2, -2, -6, -10])
    np.testing.assert_array_equal([part.stop for part in parts], [13, 9, 5, 1, -3])
    # Inside the block, where the last real token of the stream so far ends.
    np.testing.assert_array_equal([part.end for part in parts], [4, 4, 4, 1, 0])


def test_a_block_of_a_block_is_a_block_of_the_whole():
    padding = Padding(position(6), position(13), 20, is_none=False)
    inner = padding.block(position(4), 12).block(position(8), UNIT)
    outer = padding.block(position(12), UNIT)
    assert jax.tree.map(int, inner) == jax.tree.map(int, outer)


def test_no_padding_is_known_while_tracing():
    rows = jnp.asarray(ROWS)
    padding = Padding.none(12)
    assert padding.is_none
    assert padding.is_real().all()
    assert int(padding.n_real) == 12
    block = padding.block(position(4), UNIT)
    assert block.is_none
    assert block.is_real().all()
    assert int(block.n_real) == UNIT
    assert int(block.start) == -4, "four tokens stand before the block"
    assert padding.pad(rows) is rows
    assert padding.unpad(rows, 12) is rows
    assert padding.merge(rows, rows + 1) is rows
    assert not Padding.trailing(3, 12).is_none
    assert Padding.trailing(12, 12).is_none


def test_trailing_padding_follows_the_tokens():
    padding = Padding.trailing(3, 5)
    np.testing.assert_array_equal(padding.is_real(), [1, 1, 1, 0, 0])
    assert (int(padding.n_real), int(padding.end)) == (3, 3)


def test_merge_keeps_what_is_not_real():
    new, old = jnp.asarray(ROWS), -jnp.asarray(ROWS)
    mixed = Padding.trailing(5, 12).merge({"a": new}, {"a": old})["a"]
    np.testing.assert_array_equal(mixed[:5], new[:5])
    np.testing.assert_array_equal(mixed[5:], old[5:])
