import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from pydantic import ValidationError

from titans_eqx.config import (
    AttentionConfig,
    MemoryConfig,
    ModelConfig,
    OptimizerConfig,
)
from titans_eqx.models import build_model
from titans_eqx.training.optimizer import build_optimizer, decayed, trainable

pytestmark = pytest.mark.usefixtures("optax_promotion")

BLOCK = ".backbone.stacks[0].pattern[0]"
DECAYED = {
    f"{BLOCK}.mixer.memory.heads.projections.query.linear.weight",
    f"{BLOCK}.mixer.memory.heads.projections.key.linear.weight",
    f"{BLOCK}.mixer.memory.heads.projections.value.linear.weight",
    f"{BLOCK}.mixer.memory.read_out.gate.weight",
    f"{BLOCK}.mixer.memory.read_out.projection.weight",
    f"{BLOCK}.mixer.attention.heads.query_projection.weight",
    f"{BLOCK}.mixer.attention.heads.key_projection.weight",
    f"{BLOCK}.mixer.attention.heads.value_projection.weight",
    f"{BLOCK}.mixer.attention.heads.output_projection.weight",
    f"{BLOCK}.feedforward.gate_projection.weight",
    f"{BLOCK}.feedforward.in_projection.weight",
    f"{BLOCK}.feedforward.out_projection.weight",
    ".head.weight",
}
NOT_DECAYED = {
    ".embedding",
    f"{BLOCK}.mixer_norm.weight",
    f"{BLOCK}.mixer.memory.heads.projections.query.conv.kernel",
    f"{BLOCK}.mixer.memory.heads.projections.key.conv.kernel",
    f"{BLOCK}.mixer.memory.heads.projections.value.conv.kernel",
    f"{BLOCK}.mixer.memory.heads.projections.gates.linears['decay'].weight",
    f"{BLOCK}.mixer.memory.heads.projections.gates.linears['decay'].bias",
    f"{BLOCK}.mixer.memory.heads.projections.gates.linears['momentum'].weight",
    f"{BLOCK}.mixer.memory.heads.projections.gates.linears['momentum'].bias",
    f"{BLOCK}.mixer.memory.heads.projections.gates.linears['learning_rate'].weight",
    f"{BLOCK}.mixer.memory.heads.projections.gates.linears['learning_rate'].bias",
    f"{BLOCK}.mixer.memory.read_out.norm.weight",
    f"{BLOCK}.mixer.attention.heads.persistent_tokens",
    f"{BLOCK}.mixer.write_norm.weight",
    f"{BLOCK}.mixer.gate.gate",
    f"{BLOCK}.feedforward_norm.weight",
    ".backbone.norm.weight",
}
INITIAL_WEIGHTS = {f"{BLOCK}.mixer.memory.heads.initial_weights[{i}]" for i in range(2)}


def build_arrays(initial_memory="frozen", **options):
    config = ModelConfig(
        d_model=8,
        n_layers=2,
        tied_embeddings=False,
        memory=MemoryConfig(n_heads=2, chunk_len=4, initial_memory=initial_memory),
        attention=AttentionConfig(n_heads=2, segment_len=8),
        **options,
    )
    model = eqx.filter_eval_shape(lambda: build_model(config, key=jr.key(0)))
    return eqx.filter(model, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))


def marked(tree, leaves_by_path):
    return {path for path, mark in leaves_by_path(tree).items() if mark}


def test_frozen_memory_is_all_that_is_not_trained(leaves_by_path):
    arrays = build_arrays()
    names = leaves_by_path(arrays).keys()
    assert names == DECAYED | NOT_DECAYED | INITIAL_WEIGHTS
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), arrays)
    assert marked(trainable(zeros), leaves_by_path) == DECAYED | NOT_DECAYED


def test_learned_memory_is_trained_and_not_decayed(leaves_by_path):
    arrays = build_arrays(initial_memory="learned")
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), arrays)
    everything = DECAYED | NOT_DECAYED | INITIAL_WEIGHTS
    assert marked(trainable(zeros), leaves_by_path) == everything
    assert marked(decayed(arrays), leaves_by_path) == DECAYED


def test_integers_are_not_trained():
    tree = {"count": jnp.zeros(3, jnp.int32), "weight": jnp.zeros(3)}
    assert trainable(tree) == {"count": False, "weight": True}


def test_only_matrices_of_linear_maps_are_decayed(leaves_by_path):
    arrays = build_arrays()
    assert marked(decayed(arrays), leaves_by_path) == DECAYED


@pytest.mark.parametrize("gate", ["mix", "multiply"])
@pytest.mark.parametrize("pattern", ["mac", "mag"])
def test_stream_gates_are_never_decayed(leaves_by_path, pattern, gate):
    names = marked(decayed(build_arrays(pattern=pattern, gate=gate)), leaves_by_path)
    assert not [name for name in names if ".mixer.gate" in name]
    assert not [name for name in names if "norm" in name]


@pytest.mark.parametrize("pattern", ["mag", "mal", "lmm", "transformer"])
def test_other_blocks_decay_the_same_matrices(leaves_by_path, pattern):
    arrays = build_arrays(pattern=pattern)
    present = leaves_by_path(arrays).keys()
    names = marked(decayed(arrays), leaves_by_path)
    assert names <= DECAYED
    assert names == {
        name
        for name in present
        if name.endswith(("projection.weight", "linear.weight", "read_out.gate.weight"))
        or name == ".head.weight"
    }


class Renamed(eqx.Module):
    """Parts whose names say nothing of what they are."""

    weight: eqx.nn.Linear
    head: eqx.nn.RMSNorm
    projection: jax.Array
    gates: eqx.nn.Linear


def test_the_type_of_a_module_decides_and_not_its_name(leaves_by_path):
    first, second = (eqx.nn.Linear(2, 3, key=jr.key(i)) for i in range(2))
    module = Renamed(first, eqx.nn.RMSNorm(2), jnp.zeros((2, 2)), second)
    assert marked(decayed(module), leaves_by_path) == {
        ".weight.weight",
        ".gates.weight",
    }


def test_holes_of_a_partitioned_tree_stay_holes():
    linear = eqx.nn.Linear(2, 3, key=jr.key(0))
    no_weight = eqx.tree_at(lambda m: m.weight, linear, None)
    marks = decayed((no_weight, eqx.nn.Linear(2, 3, use_bias=False, key=jr.key(1))))
    assert jax.tree.leaves(marks[0]) == [False]
    assert (marks[1].weight, marks[1].bias) == (True, None)


def rate_config(**changes):
    # Without averages and decay, AdamW moves every parameter by the learning rate.
    options = {"beta1": 0.0, "beta2": 0.0, "weight_decay": 0.0} | changes
    return OptimizerConfig(learning_rate=0.5, final_fraction=0.2, **options)


def rates(config, total_steps, n_steps):
    optimizer = build_optimizer(config, total_steps)
    parameters = {"scale": jnp.ones(())}
    state, seen = optimizer.init(parameters), []
    for _ in range(n_steps):
        updates, state = optimizer.update({"scale": jnp.ones(())}, state, parameters)
        seen.append(-float(updates["scale"]))
    return seen


def test_rate_rises_linearly_then_falls_as_a_cosine():
    seen = rates(rate_config(warmup_steps=4), 14, 16)
    assert seen[0] == 0
    np.testing.assert_allclose(seen[:5], [0, 0.125, 0.25, 0.375, 0.5], rtol=1e-5)
    cosine = [0.3 + 0.2 * math.cos(math.pi * i / 10) for i in range(10)]
    np.testing.assert_allclose(seen[4:14], cosine, rtol=1e-5)
    np.testing.assert_allclose(seen[14:], 0.1, rtol=1e-5)


def test_without_warmup_the_first_step_has_the_full_rate():
    np.testing.assert_allclose(rates(rate_config(warmup_steps=0), 10, 1), [0.5])


def test_warmup_may_last_as_long_as_the_run():
    seen = rates(rate_config(warmup_steps=2), 2, 3)
    np.testing.assert_allclose(seen, [0, 0.25, 0.5], rtol=1e-5)


def first_update(optimizer, gradient, parameters):
    @jax.jit
    def update(gradient, parameters):
        return optimizer.update(gradient, optimizer.init(parameters), parameters)[0]

    return update(gradient, parameters)


def test_decay_pulls_matrices_by_rate_and_nothing_else(leaves_by_path):
    arrays = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), build_arrays())
    parameters = eqx.filter(arrays, trainable(arrays))
    config = rate_config(warmup_steps=0, weight_decay=0.1)
    optimizer = build_optimizer(config, 10)
    gradient = jax.tree.map(jnp.zeros_like, parameters)
    updates = first_update(optimizer, gradient, parameters)
    for name, update in leaves_by_path(updates).items():
        expected = -0.05 if name in DECAYED else 0.0
        np.testing.assert_allclose(update, expected, rtol=1e-6, err_msg=name)


def test_gradients_above_the_norm_are_cut_to_it():
    config = rate_config(warmup_steps=0, beta1=0.5, clip_norm=2.0)
    optimizer = build_optimizer(config, 10)

    def second_update(first):
        parameters = {"scales": jnp.zeros(2)}
        state = optimizer.init(parameters)
        _, state = optimizer.update({"scales": first}, state, parameters)
        second = {"scales": jnp.asarray([0.6, 0.8])}
        return optimizer.update(second, state, parameters)[0]["scales"]

    small, large = jnp.asarray([1.2, 1.6]), jnp.asarray([120.0, 160.0])
    np.testing.assert_allclose(second_update(large), second_update(small), rtol=1e-5)
    below = second_update(jnp.asarray([0.6, 0.8]))
    assert not np.allclose(second_update(small), below, rtol=1e-2)


def muon_update(gradient, parameters, **changes):
    config = rate_config(name="muon", muon_learning_rate=0.5, warmup_steps=0, **changes)
    return first_update(build_optimizer(config, 10), gradient, parameters)


def test_muon_moves_the_weights_of_linear_maps_and_adamw_the_rest(leaves_by_path):
    arrays = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), build_arrays())
    parameters = eqx.filter(arrays, trainable(arrays))
    # Of rank one: each of its steps is the gradient's direction, at Muon's length.
    updates = muon_update(jax.tree.map(jnp.ones_like, parameters), parameters)
    for name, update in leaves_by_path(updates).items():
        is_muon = name in DECAYED and name != ".head.weight"
        if is_muon:
            assert -0.5 < np.mean(update) < 0, name
        else:
            np.testing.assert_allclose(update, -0.5, rtol=1e-4, err_msg=name)


def test_steps_of_muon_are_orthogonal_layer_by_layer():
    linear = jax.vmap(lambda key: eqx.nn.Linear(6, 4, key=key))(jr.split(jr.key(0), 3))
    gradient = jax.tree.map(lambda leaf: jr.normal(jr.key(1), leaf.shape), linear)
    update = muon_update(gradient, linear)
    for step in np.asarray(update.weight) / (0.2 * 0.5 * math.sqrt(6)):
        # Newton-Schulz as Muon has it only brings singular values near one.
        values = np.linalg.svd(step, compute_uv=False)
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_decay_pulls_what_muon_moves(leaves_by_path):
    arrays = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), build_arrays())
    parameters = eqx.filter(arrays, trainable(arrays))
    gradient = jax.tree.map(jnp.zeros_like, parameters)
    updates = muon_update(gradient, parameters, weight_decay=0.1)
    for name, update in leaves_by_path(updates).items():
        is_pulled = name in DECAYED and name != ".head.weight"
        expected = -0.05 if is_pulled else 0.0
        np.testing.assert_allclose(update, expected, atol=1e-7, err_msg=name)


def test_rate_of_muon_without_muon_is_refused():
    with pytest.raises(ValidationError, match=r"no effect with optimizer\.name"):
        OptimizerConfig(muon_learning_rate=0.5)
