import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from titans_eqx.config import AttentionConfig, MemoryConfig, ModelConfig
from titans_eqx.models import build_model
from titans_eqx.sharding.mesh import batch_sharding, build_mesh, replicated
from titans_eqx.training.loss import batch_loss
from titans_eqx.training.state import TrainState, assemble, init_train_state
from titans_eqx.training.step import build_eval_step, build_train_step

pytestmark = [
    pytest.mark.usefixtures("optax_promotion", "double_precision"),
    pytest.mark.skipif(jax.device_count() < 4, reason="needs 4 devices"),
]

BATCH, SEQ_LEN, VOCAB = 4, 16, 11
PATTERNS = ["mac", "mag", "mal", "lmm", "transformer"]
TOLERANCE = 1e-9  # float64; the order of sums differs between numbers of devices


def model_config(pattern, **memory):
    return ModelConfig(
        pattern=pattern,
        d_model=8,
        n_layers=1,
        vocab_size=VOCAB,
        tied_embeddings=False,
        memory=MemoryConfig(n_heads=2, chunk_len=4, expansion=1, **memory),
        attention=AttentionConfig(n_heads=2, segment_len=8, window=8, n_persistent=2),
    )


def random_batch(seed):
    tokens = np.asarray(jr.randint(jr.key(seed), (BATCH, SEQ_LEN + 1), 0, VOCAB))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    return {"inputs": inputs, "targets": targets, "mask": np.ones(inputs.shape, bool)}


def as_arrays(batch):
    return jax.tree.map(jnp.asarray, batch)


@functools.cache
def built(config):
    return build_model(config, key=jr.key(1))


def copy_to_host(tree):
    # Steps donate their state, so what is compared later has to be a copy.
    return jax.tree.map(lambda leaf: np.array(leaf), tree)


class Trainer:
    """A train step on some devices, always from the same start."""

    def __init__(self, config, optimizer, n_devices):
        self.mesh = build_mesh(BATCH, data=n_devices)
        state, self.static = init_train_state(built(config), optimizer)
        self.start = copy_to_host(state)
        self.step = build_train_step(optimizer, self.static, self.mesh)
        self.eval_step = build_eval_step(self.static, self.mesh)

    def place(self, batch):
        return jax.device_put(batch, batch_sharding(self.mesh))

    def run(self, *batches, start=None):
        state = jax.device_put(start or self.start, replicated(self.mesh))
        metrics = []
        for batch in batches:
            state, step_metrics = self.step(state, self.place(batch))
            metrics.append(copy_to_host(step_metrics))
        return copy_to_host(state), metrics

    def losses(self, batch):
        state = jax.device_put(self.start, replicated(self.mesh))
        sums = self.eval_step(state, self.place(batch))
        return np.asarray(sums.loss) / np.asarray(sums.n_scored)

    def gradient(self, batch):
        """What a step with a rate of one takes away."""
        state, _ = self.run(batch)
        return jax.tree.map(
            lambda old, new: old - new, self.start.parameters, state.parameters
        )


@pytest.fixture(scope="module")
def mac_trainers(optax_promotion, double_precision):
    config = model_config("mac")
    return {n: Trainer(config, optax.sgd(1.0), n) for n in (1, 4)}


@pytest.fixture(scope="module")
def mac(mac_trainers):
    return mac_trainers[4]


def assert_close_trees(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)


def assert_equal_trees(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_one_device_equals_four_in_mac_with_sgd(mac_trainers):
    batches = [random_batch(seed) for seed in range(3)]
    expected_state, expected = mac_trainers[1].run(*batches)
    state, metrics = mac_trainers[4].run(*batches)
    assert_close_trees(metrics, expected)
    assert_close_trees(state, expected_state)


@pytest.fixture(scope="module")
def learned_on_one_device(optax_promotion, double_precision):
    return run_learned(n_devices=1)


def run_learned(n_devices):
    config = model_config("lmm", surprise="full", initial_memory="learned")
    optimizer = optax.adamw(1e-2, weight_decay=0.1)
    trainer = Trainer(config, optimizer, n_devices)
    assert jax.tree.leaves(trainer.start.frozen) == []
    return trainer.run(*(random_batch(seed) for seed in range(3)))


def test_devices_agree_on_a_learned_memory_with_adamw(learned_on_one_device):
    expected_state, expected = learned_on_one_device
    state, metrics = run_learned(n_devices=4)
    assert_close_trees(metrics, expected)
    assert_close_trees(state, expected_state)


def test_gradient_of_a_batch_is_the_mean_over_its_sequences(mac):
    batch = random_batch(7)
    alone = [
        mac.gradient({name: np.stack([x[i]] * BATCH) for name, x in batch.items()})
        for i in range(BATCH)
    ]
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *alone)
    assert_close_trees(mac.gradient(batch), mean)
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(mean))


def test_loss_of_a_sequence_does_not_depend_on_others(mac):
    batch = random_batch(3)
    losses = mac.losses(batch)
    for changed in range(BATCH):
        other = {name: x.copy() for name, x in batch.items()}
        for name in ("inputs", "targets"):
            x = other[name][changed]
            other[name][changed] = (x + 1 + np.arange(SEQ_LEN) % 3) % VOCAB
        is_equal = mac.losses(other) == losses
        assert is_equal.tolist() == [i != changed for i in range(BATCH)]


def test_step_reports_the_mean_loss_before_its_update(mac):
    batch = random_batch(5)
    _, (metrics,) = mac.run(batch)
    np.testing.assert_allclose(metrics.loss, mac.losses(batch).mean(), rtol=TOLERANCE)
    gradient = jax.tree.leaves(mac.gradient(batch))
    norm = np.sqrt(sum(np.sum(leaf**2) for leaf in gradient))
    np.testing.assert_allclose(metrics.gradient_norm, norm, rtol=1e-7)


def test_frozen_memory_never_changes_and_has_no_optimizer_state(mac):
    state, _ = mac.run(*(random_batch(seed) for seed in range(4)))
    assert_equal_trees(state.frozen, mac.start.frozen)
    assert state.step == 4
    adam = optax.adamw(1e-2).init(mac.start.parameters)
    for held in (mac.start.parameters, optax.tree.get(adam, "mu")):
        assert held.backbone.stacks[0].pattern[
            0
        ].mixer.memory.heads.initial_weights == (
            None,
            None,
        )
    frozen = jax.tree.leaves(mac.start.frozen)
    assert [leaf.shape for leaf in frozen] == [(1, 2, 4, 4), (1, 2, 4, 4)]


def test_every_parameter_of_mac_is_moved(mac, leaves_by_path):
    state, _ = mac.run(random_batch(0))
    before = leaves_by_path(mac.start.parameters)
    for path, after in leaves_by_path(state.parameters).items():
        assert np.any(after != before[path]), path


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_step_without_a_finite_gradient_changes_nothing_and_is_counted(mac, value):
    def scale_of(state):
        return state.parameters.backbone.norm.weight

    spoilt = np.full_like(scale_of(mac.start), value)
    start = eqx.tree_at(scale_of, mac.start, spoilt)
    state, metrics = mac.run(random_batch(0), random_batch(1), start=start)
    assert not np.isfinite(metrics[0].loss)
    assert [int(one.skipped) for one in metrics] == [1, 2]
    assert (state.step, state.skipped) == (2, 2)
    assert_equal_trees(state.parameters, start.parameters)
    assert_equal_trees(state.optimizer, start.optimizer)
    assert_equal_trees(state.frozen, start.frozen)


def test_finite_step_after_a_skipped_one_is_taken(mac):
    start = eqx.tree_at(lambda s: s.skipped, mac.start, np.int32(3))
    expected, _ = mac.run(random_batch(0))
    state, (metrics,) = mac.run(random_batch(0), start=start)
    assert (metrics.skipped, state.skipped) == (3, 3)
    assert_equal_trees(state.parameters, expected.parameters)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_array_of_a_model_is_weakly_typed(pattern):
    model = eqx.filter_eval_shape(
        lambda: build_model(model_config(pattern), key=jr.key(0))
    )
    leaves = [leaf for leaf in jax.tree.leaves(model) if hasattr(leaf, "dtype")]
    assert leaves
    assert not any(leaf.weak_type for leaf in leaves)


def test_step_is_compiled_once(mac):
    mac.run(random_batch(0), random_batch(1))
    assert mac.step._cache_size() == 1


def test_assembled_model_is_the_one_that_was_split(mac):
    model = built(model_config("mac"))
    state, static = init_train_state(model, optax.sgd(1.0))
    assert isinstance(state, TrainState)
    assert all(eqx.is_array(leaf) for leaf in jax.tree.leaves(state))
    assert eqx.tree_equal(assemble(state, static), model)


def test_items_of_a_checkpoint_are_the_whole_state(mac):
    items = mac.start.items()
    assert items.keys() == {"model", "optimizer", "counters"}
    model = built(model_config("mac"))
    assert_equal_trees(items["model"], eqx.filter(model, eqx.is_array))
    state = TrainState.from_items(as_arrays(items))
    assert_equal_trees(state, mac.start)


def test_loss_is_the_cross_entropy_in_nats():
    model = built(model_config("transformer"))
    scores = np.linspace(-1.0, 2.0, VOCAB)
    head = eqx.nn.Linear(8, VOCAB, key=jr.key(0))
    head = eqx.tree_at(
        lambda h: (h.weight, h.bias), head, (jnp.zeros((VOCAB, 8)), jnp.asarray(scores))
    )
    fixed = eqx.tree_at(lambda m: m.head, model, head)
    batch = random_batch(9)
    probabilities = np.exp(scores) / np.exp(scores).sum()
    expected = -np.log(probabilities[batch["targets"]])
    scores = eqx.filter_jit(batch_loss)(fixed, as_arrays(batch))
    np.testing.assert_allclose(scores.loss, expected)
    np.testing.assert_array_equal(scores.is_correct, batch["targets"] == VOCAB - 1)


def test_even_scores_cost_the_logarithm_of_the_vocabulary():
    model = built(model_config("transformer"))
    silent = eqx.tree_at(
        lambda m: m.backbone.norm.weight, model, replace_fn=jnp.zeros_like
    )
    scores = eqx.filter_jit(batch_loss)(silent, as_arrays(random_batch(1)))
    np.testing.assert_allclose(scores.loss, np.log(VOCAB))


def test_unscored_tokens_do_not_count(mac_trainers):
    batch = random_batch(6)
    # All of one sequence and parts of others, so that devices differ in how much they
    # score.
    batch["mask"][0] = batch["mask"][1, 3:] = False
    batch["targets"] = batch["targets"] * batch["mask"]
    scores = eqx.filter_jit(batch_loss)(built(model_config("mac")), as_arrays(batch))
    assert int(batch["mask"].sum()) == 2 * SEQ_LEN + 3
    assert not np.any(scores.loss[0])
    assert not np.any(scores.is_correct[0])
    for trainer in mac_trainers.values():
        _, (metrics,) = trainer.run(batch)
        np.testing.assert_allclose(
            metrics.loss, scores.loss.sum() / (2 * SEQ_LEN + 3), rtol=TOLERANCE
        )
