"""Where documents start, and how a row of them is laid out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from titans_eqx.nn.documents import Documents, document_starts

LENGTH = 7
# All rows of at most four documents, with unused places at the end.
STARTS = np.array(list(itertools.combinations_with_replacement(range(LENGTH + 1), 3)))


@pytest.mark.parametrize(("unit", "has_offset"), [(3, False), (4, True)])
def test_every_document_starts_at_a_unit_whatever_the_row(unit, has_offset):
    offsets = np.arange(unit if has_offset else 1)
    rows = jnp.arange(1, LENGTH + 1)

    def lay_out(starts, offset):
        layout = Documents(starts, LENGTH).layout(unit, offset if has_offset else None)
        units = layout.pad(rows)
        return units, layout.is_real, layout.is_start, layout.unpad(units)

    over_offsets = jax.vmap(lay_out, (None, 0))
    units, is_real, is_start, back = jax.jit(jax.vmap(over_offsets, (0, None)))(
        jnp.asarray(STARTS), jnp.asarray(offsets)
    )
    np.testing.assert_array_equal(back, np.broadcast_to(rows, back.shape))
    np.testing.assert_array_equal(units > 0, is_real)
    assert np.all(np.sum(is_real, axis=(2, 3)) == LENGTH)
    for starts, *found in zip(STARTS, units, is_start, strict=True):
        firsts = np.unique(starts[starts < LENGTH]) + 1
        for one, is_first in zip(*found, strict=True):
            np.testing.assert_array_equal(one[is_first, 0], firsts)


def test_starts_outside_the_row_start_nothing_and_the_others_come_in_any_order():
    documents = Documents(jnp.array([5, -3, 2, LENGTH + 4]), LENGTH)
    np.testing.assert_array_equal(documents.numbers, [0, 0, 1, 1, 1, 2, 2])
    assert Documents(jnp.array([-3, LENGTH]), LENGTH).is_continued


def test_starts_of_runs_of_equal_ids():
    ids = [[4, 4, 4, 4], [0, 0, 1, 0], [7, 8, 8, 9]]
    np.testing.assert_array_equal(
        document_starts(np.array(ids), 4), [[4, 4, 4], [2, 3, 4], [1, 3, 4]]
    )
    np.testing.assert_array_equal(document_starts(np.array(ids[0]), 1), [])
    with pytest.raises(ValueError, match="a row has 3 documents"):
        document_starts(np.array(ids), 2)
