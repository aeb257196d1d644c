from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.sharding.devices import over_devices
from titans_eqx.nn.streams import STREAMS
from titans_eqx.sharding.varying import scan, select_seldom, vary_like, while_loop


def test_a_scan_may_start_from_constants_on_every_device():
    def running_sum(x):
        return scan(lambda total, row: (total + row, total), jnp.zeros(()), x)[1]

    x = jnp.arange(4.0 * jax.device_count())
    expected = np.concatenate(
        [np.cumsum(part) - part for part in np.asarray(x).reshape(-1, 4)]
    )
    np.testing.assert_array_equal(over_devices(running_sum, x), expected)


def test_a_loop_may_start_from_constants_and_ends_on_each_device_by_itself():
    def first_power_above(x):
        start = (jnp.zeros((), jnp.int32), jnp.ones(()))
        n, _ = while_loop(
            lambda carry: carry[1] <= x[0],
            lambda carry: (carry[0] + 1, 2 * carry[1]),
            start,
            x,
        )
        return n[None]

    limits = jnp.asarray([3.0**n for n in range(jax.device_count())])
    expected = np.floor(np.log2(np.asarray(limits))) + 1
    np.testing.assert_array_equal(over_devices(first_power_above, limits), expected)


def test_each_device_chooses_by_itself_between_constants_and_what_varies():
    def choose(x):
        one, other = (x, jnp.ones(1), x), (2 * x, jnp.zeros(1), x)
        return select_seldom(x[0] > 1, lambda: one, other)

    x = jnp.arange(float(jax.device_count()))
    expected = (np.where(x > 1, x, 2 * x), x > 1, x)
    for chosen, of_one in zip(over_devices(choose, x), expected, strict=True):
        np.testing.assert_array_equal(chosen, of_one)


def test_what_is_seldom_wanted_is_worked_out_only_where_it_is():
    worked_out = []

    @jax.jit
    def choose(condition, x):
        def double():
            jax.debug.callback(lambda: worked_out.append("double"))
            return 2 * x

        return select_seldom(condition, double, x)

    for condition, expected in ((False, 3), (True, 6), (False, 3)):
        assert choose(jnp.asarray(condition), jnp.asarray(3)) == expected
    jax.effects_barrier()
    assert worked_out == ["double"]


def test_what_no_stream_wants_is_not_worked_out_for_any():
    worked_out = []

    @jax.jit
    @partial(jax.vmap, axis_name=STREAMS)
    def choose(condition, x):
        def double():
            jax.debug.callback(lambda: worked_out.append("double"))
            return 2 * x

        return select_seldom(condition, double, x)

    x, n_worked_out = jnp.arange(1, 4), []
    for conditions in ([False] * 3, [False, True, False], [False] * 3):
        chosen = choose(jnp.asarray(conditions), x)
        np.testing.assert_array_equal(chosen, np.where(conditions, 2 * x, x))
        jax.effects_barrier()
        n_worked_out.append(len(worked_out))
    assert n_worked_out[0] == 0 < n_worked_out[1] == n_worked_out[2]


def test_a_batch_of_conditions_chooses_row_by_row():
    @jax.jit
    @jax.vmap
    def choose(condition, x):
        return select_seldom(condition, lambda: x, -x)

    conditions, x = jnp.asarray([True, False, True]), jnp.arange(6.0).reshape(3, 2)
    chosen = choose(conditions, x)
    np.testing.assert_array_equal(chosen, np.where(conditions[:, None], x, -x))


@pytest.mark.parametrize("backend", ["cpu", "an accelerator"])
def test_what_was_not_chosen_has_no_gradient(monkeypatch, backend):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)

    def total(one, other):
        never = jnp.asarray(False)
        return jnp.sum(select_seldom(never, lambda: jnp.log(one), 2 * other))

    by_one, by_other = jax.grad(total, argnums=(0, 1))(jnp.ones(2), jnp.ones(2))
    np.testing.assert_array_equal(by_one, 0)
    np.testing.assert_array_equal(by_other, 2)


def test_gradients_by_a_marked_constant_stay_on_their_device():
    def slope(x):
        zero = vary_like(jnp.zeros(()), x)
        return jax.grad(lambda zero: jnp.sum((x + zero) ** 2))(zero)[None]

    x = jnp.arange(1.0, jax.device_count() + 1)
    np.testing.assert_array_equal(over_devices(slope, x), 2 * x)


def test_nothing_changes_outside_shard_map():
    tree = {"a": jnp.ones(3)}
    assert vary_like(tree, jnp.zeros(2))["a"] is tree["a"]
