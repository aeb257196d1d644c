import jax
import jax.numpy as jnp
import numpy as np
import pytest

from titans_eqx.nn import Span

UNIT = 4
ROWS = np.arange(1.0, 25.0).reshape(12, 2)


@pytest.mark.parametrize("phase", range(UNIT))
@pytest.mark.parametrize("n_tokens", [1, 4, 5, 12])
def test_take_undoes_place_at_every_phase(phase, n_tokens):
    rows = jnp.asarray(ROWS[:n_tokens])
    span = Span.placed(n_tokens, jnp.asarray(phase), UNIT)
    assert span.length % UNIT == 0
    slots = span.place(rows)
    expected = np.zeros((span.length, 2))
    expected[phase : phase + n_tokens] = rows
    np.testing.assert_array_equal(slots, expected)
    np.testing.assert_array_equal(span.mask(), expected[:, 0] != 0)
    np.testing.assert_array_equal(span.take(slots, n_tokens), rows)


def test_one_compiled_function_serves_every_phase():
    @jax.jit
    def place(phase):
        return Span.placed(5, phase, UNIT).mask()

    masks = [np.flatnonzero(place(jnp.asarray(phase)))[0] for phase in range(UNIT)]
    assert masks == list(range(UNIT))
    assert place._cache_size() == 1


def test_parts_of_a_span_are_its_mask_cut_up():
    span = Span.placed(6, jnp.asarray(1), UNIT)
    parts = [
        span.part(jnp.asarray(first), UNIT) for first in range(0, span.length, UNIT)
    ]
    mask = np.concatenate([part.mask() for part in parts])
    np.testing.assert_array_equal(mask, span.mask())
    assert int(parts[-1].start) == int(parts[-1].stop), "the last part is empty"


def test_a_whole_span_is_known_while_tracing():
    rows = jnp.asarray(ROWS)
    span = Span.whole(12)
    assert span.is_whole
    assert span.mask().all()
    assert span.part(jnp.asarray(4), UNIT).is_whole
    assert span.place(rows) is rows
    assert span.take(rows, 12) is rows
    assert span.overlay(rows, rows + 1) is rows
    assert not Span.leading(3, 12).is_whole


def test_overlay_keeps_what_is_not_real():
    new, old = jnp.asarray(ROWS), -jnp.asarray(ROWS)
    mixed = Span.leading(5, 12).overlay({"a": new}, {"a": old})["a"]
    np.testing.assert_array_equal(mixed[:5], new[:5])
    np.testing.assert_array_equal(mixed[5:], old[5:])
