import jax
import jax.numpy as jnp
import numpy as np

from titans_eqx.nn.streams import STREAMS, any_stream, are_side_by_side


def test_streams_side_by_side_are_asked_together():
    asked = jax.vmap(any_stream, axis_name=STREAMS, out_axes=None)
    assert asked(jnp.asarray([False, True, False]))
    assert not asked(jnp.zeros(3, bool))


def test_the_only_stream_is_asked_alone():
    condition = jnp.asarray(True)
    assert any_stream(condition) is condition
    alone = jax.vmap(any_stream)(jnp.asarray([False, True]))
    np.testing.assert_array_equal(alone, [False, True])


def test_streams_know_whether_they_are_side_by_side():
    known = []

    def ask(x):
        known.append(are_side_by_side())
        return x

    x = jnp.zeros(2)
    ask(x)
    jax.vmap(ask)(x)
    jax.vmap(ask, axis_name="another")(x)
    jax.jit(jax.vmap(ask, axis_name=STREAMS))(x)
    assert known == [False, False, False, True]
