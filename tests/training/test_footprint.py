import functools

import jax
import jax.numpy as jnp
import pytest

from tests.refusal import assert_refused
from titans_eqx.nn.remat import recomputing, remat, save_for_backward
from titans_eqx.sharding.capacity import Capacity
from titans_eqx.sharding.mesh import batch_sharding
from titans_eqx.training import TrainContext, footprint
from titans_eqx.training.footprint import Footprint, batch_shapes, spell_bytes
from titans_eqx.training.step import build_train_step

GIB = 2**30


def peak(function, *shapes):
    return footprint._peak(jax.make_jaxpr(function)(*map(jnp.zeros, shapes)).jaxpr)


def test_what_lives_at_once_is_counted():
    kib = (256,)  # float32
    assert peak(lambda x: x + 1, kib) == 1024
    assert peak(lambda x: (x + 1) * 2, kib) == 2048  # input and result of the product
    assert peak(lambda x: ((x + 1) * 2) / 3, kib) == 2048
    kept = peak(jax.grad(lambda x: jnp.sum(jnp.sin(jnp.sin(jnp.sin(x))))), kib)
    assert 3 * 1024 <= kept <= 5 * 1024  # a cosine of each sine waits

    def stacked(x):
        return jax.lax.scan(lambda x, _: (x, x + 1), x, length=10)[1]

    assert 10 * 1024 <= peak(stacked, kib) <= 12 * 1024


@pytest.mark.slow
@pytest.mark.usefixtures("optax_promotion")
def test_the_compiler_needs_about_as_much(small_config):
    config = small_config(train__batch_size=8, data__seq_len=64)
    context = TrainContext.build(config, abstract=True)
    found = context.footprint
    state = context.state
    arrays = jax.tree.leaves((state.parameters, state.frozen))
    assert found.parameters == sum(x.size * 4 for x in arrays)
    assert found.optimizer == sum(x.size * 4 for x in jax.tree.leaves(state.optimizer))
    lowered = context.train_step.lower(state, batch_shapes(config, context.mesh))
    analysis = lowered.compile().memory_analysis()
    assert analysis is not None
    needed = analysis.temp_size_in_bytes
    assert needed / 2 < found.step < needed * 2


def step_bytes(config):
    return TrainContext.build(config, abstract=True).footprint.step


@pytest.fixture(scope="module")
def needed(small_config, optax_promotion):
    """A function from keys to the bytes that a step of a deep transformer needs."""
    sizes = {
        "model__pattern": "transformer",
        "model__n_layers": 4,
        "model__d_model": 32,
        "train__batch_size": 16,
        "train__loss_block": 16,
        "data__seq_len": 128,  # activations are most of it
    }
    return functools.cache(lambda **keys: step_bytes(small_config(**sizes, **keys)))


@pytest.mark.parametrize(
    ("key", "value", "share"),
    [("accumulate", 4, 0.4), ("precision", "mixed", 0.8), ("remat", "block", 0.5)],
)
def test_a_step_can_do_with_less(needed, key, value, share):
    assert needed(**{f"train__{key}": value}) < share * needed()


@pytest.mark.usefixtures("optax_promotion")
def test_a_large_vocabulary_needs_less_in_blocks(small_config):
    sizes = {"model__vocab_size": 50_000, "data__seq_len": 128}
    sizes["model__pattern"] = "transformer"
    whole, blocks = (
        step_bytes(small_config(**sizes, train__loss_block=n)) for n in (0, 16)
    )
    logits = 128 * 50_000 * 4  # of a row in float32
    assert whole > 2 * logits  # and their gradient
    assert blocks < logits


def test_at_the_highest_level_chunks_keep_only_what_they_start_from():
    def body(carry, _):
        for _ in range(5):
            carry = jnp.sin(save_for_backward(carry))
        return carry, None

    def kept(level):
        def loss(x):
            with recomputing(level):
                return jnp.sum(jax.lax.scan(remat(body), x, length=100)[0])

        return peak(jax.grad(loss), (256,))

    kib = 1024
    assert 500 * kib < kept("block") < 600 * kib
    assert 100 * kib < kept("everything") < 150 * kib


@pytest.mark.usefixtures("optax_promotion")
def test_looking_at_a_step_does_not_trace_it_twice(small_config):
    config = small_config(model__pattern="transformer")
    context = TrainContext.build(config)
    n_traces = 0

    def loss(model, batch):
        nonlocal n_traces
        n_traces += 1
        logits = jax.vmap(lambda tokens: model(tokens)[0])(batch["inputs"])
        return jnp.sum(logits**2), jnp.sum(batch["mask"], dtype=jnp.int32)

    step = build_train_step(context.optimizer, context.static, context.mesh, loss)
    footprint.footprint(step, context.state, config, context.mesh)
    assert n_traces > 0
    before = n_traces
    sharding = batch_sharding(context.mesh)
    step.trace(context.state, jax.device_put(context.data.batches[0], sharding))
    assert n_traces == before


def test_a_run_that_cannot_fit_is_refused_before_it_is_allocated(small_config):
    wide = {"model__d_model": 2**16, "model__n_layers": 64}
    message = "needs more memory than there is: "
    config = small_config(**wide, model__pattern="transformer")
    assert_refused(TrainContext.build, config, message=message)
    # Nor if only what the step makes does not fit.
    window = small_config(
        model__pattern="transformer",
        model__attention={"n_heads": 2, "window": 2**27, "n_persistent": 2},
    )
    said = assert_refused(TrainContext.build, window, message=message)
    assert "parameters 1" in said


def test_devices_of_one_machine_share_its_memory():
    needed = Footprint(parameters=GIB, optimizer=2 * GIB, step=5 * GIB)
    needed.require(Capacity(n_bytes=16 * GIB, n_devices=2))
    one = needed.describe(Capacity(n_bytes=8 * GIB, n_devices=1))
    assert one.startswith("8 GiB of 8 GiB (parameters 1 GiB, optimizer 2 GiB, act")
    capacity = Capacity(n_bytes=16 * GIB - 1, n_devices=2)
    said = assert_refused(needed.require, capacity, message="Lower train.batch_size")
    assert "16 GiB of 16 GiB (on each of 2 devices: parameters 1 GiB" in said


def test_bytes_have_three_digits_and_a_unit():
    spelt = [spell_bytes(n) for n in (0, 999, 1023, 1536, 3 * 2**40, 5000 * 2**40)]
    assert spelt == [
        "0 bytes",
        "999 bytes",
        "1,023 bytes",
        "1.5 KiB",
        "3 TiB",
        "5,000 TiB",
    ]
