import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params

from tests.models.small import (
    D_MODEL,
    jittered,
    small_config,
    small_model,
    stream,
    tokens,
)
from titans_eqx.models import build_backbone, build_model
from titans_eqx.nn.remat import recomputing


def count_equations(jaxpr) -> int:
    """All equations of a program, those inside its loops and branches included."""
    return len(jaxpr.eqns) + sum(
        count_equations(sub)
        for equation in jaxpr.eqns
        for sub in jaxprs_in_params(equation.params)
    )


@pytest.mark.parametrize("pattern", ["mac", ["transformer", "mac"]])
def test_the_traced_program_does_not_grow_with_many_repeats(pattern):
    """Neither that which builds the model nor that which runs it."""

    def size(n_layers):
        config = small_config(n_layers=n_layers, pattern=pattern)

        def build_and_run(key, ids):
            return build_model(config, key=key)(ids)[0]

        traced = jax.make_jaxpr(build_and_run)(jr.key(0), tokens(4))
        return count_equations(traced.jaxpr)

    assert size(20) == size(12) > 100


@pytest.mark.parametrize(
    "pattern", [pytest.param("lmm", marks=pytest.mark.slow), "transformer"]
)
def test_a_few_repeats_run_one_after_the_other_as_in_a_scan(x64, monkeypatch, pattern):
    n_repeats = 3  # no other scan here has this length
    config = small_config(n_layers=n_repeats, pattern=pattern)
    parts, static = eqx.partition(small_model(config), eqx.is_inexact_array)

    def loss(parts):
        model = eqx.combine(parts, static)
        logits, state = model(tokens(5))
        after, state = model.step(tokens(6)[-1], state)
        return jnp.sum(jnp.sin(logits)) + jnp.sum(jnp.sin(after)), (logits, state)

    def run():
        """A function that jax has not traced yet."""
        return jax.value_and_grad(loss, has_aux=True)

    def n_scans():
        equations = jax.make_jaxpr(run())(parts).eqns
        scans = [e for e in equations if e.primitive.name == "scan"]
        return sum(e.params["length"] == n_repeats for e in scans)

    with recomputing("block"):
        assert n_scans() == 4  # over the sequence and the token, there and back
    assert n_scans() == 0
    one_by_one = jax.jit(run())(parts)
    monkeypatch.setattr("titans_eqx.models.backbone.MOST_UNROLLED", 1)
    assert n_scans() == 4
    scanned = jax.jit(run())(parts)
    assert_close(one_by_one, scanned)


def test_every_layer_has_weights_of_its_own():
    model = small_model(small_config(n_layers=3))
    (block,) = model.backbone.stacks[0].pattern
    weights = block.mixer.attention.heads.query_projection.weight
    assert weights.shape[0] == 3
    assert len(np.unique(weights[:, 0, 0])) == 3


call = eqx.filter_jit(lambda module, x, state: module(x, state))
step = eqx.filter_jit(lambda module, x, state: module.step(x, state))
probe = eqx.filter_jit(lambda module, x, state: module.probe(x, state))
start_of = eqx.filter_jit(lambda module: module.init_state())
MIXED = small_config(pattern=["transformer", "mag", "lmm"], n_layers=3)


def small_backbone(config):
    return jittered(build_backbone(config, key=jr.key(0)))


def assert_close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9),
        actual,
        expected,
    )


def test_a_backbone_reads_any_features_in_pieces_and_steps(x64):
    backbone, x = small_backbone(MIXED), stream(7)
    whole, last = call(backbone, x, None)
    assert whole.shape == (7, D_MODEL)

    first, state = call(backbone, x[:4], start_of(backbone))
    rest, state = call(backbone, x[4:], state)
    assert_close((jnp.concatenate([first, rest]), state), (whole, last))

    state, rows = start_of(backbone), []
    for row in x:
        y, state = step(backbone, row, state)
        rows.append(y)
    assert_close((jnp.stack(rows), state), (whole, last))


@pytest.mark.parametrize("own", [jnp.float32, jnp.bfloat16])
def test_features_come_in_any_float(own):
    other = {jnp.float32: jnp.bfloat16, jnp.bfloat16: jnp.float32}[own]

    def run(x):
        # Five blocks are a scan, whose carry may not change its dtype.
        drawn = build_backbone(small_config(n_layers=5), key=jr.key(0))
        backbone = jax.tree.map(
            lambda leaf: leaf.astype(own) if eqx.is_inexact_array(leaf) else leaf, drawn
        )
        whole, state = backbone(x)
        row, after = backbone.step(x[0], state)
        probed, *_ = backbone.probe(x[0], after)
        return whole, row, probed

    x = jax.ShapeDtypeStruct((4, D_MODEL), other)
    assert {y.dtype for y in jax.eval_shape(run, x)} == {jnp.dtype(own)}


@pytest.mark.parametrize("state", [None, ()], ids=["fresh", "going on"])
def test_an_empty_sequence_is_refused(state):
    backbone = eqx.filter_eval_shape(build_backbone, MIXED, key=jr.key(0))
    with pytest.raises(ValueError, match="at least one token, got none"):
        backbone(stream(0), state)


class Classifier(eqx.Module):
    """What someone else may build: the mean of the features, and a linear map."""

    embed: eqx.nn.Linear
    backbone: eqx.Module
    head: eqx.nn.Linear

    def __call__(self, series):
        features, _ = self.backbone(jax.vmap(self.embed)(series))
        return self.head(jnp.mean(features, axis=0))


@pytest.mark.slow
def test_a_classifier_of_series_around_a_backbone_learns(getkey):
    model = Classifier(
        eqx.nn.Linear(3, D_MODEL, key=getkey()),
        build_backbone(MIXED, key=getkey()),
        eqx.nn.Linear(D_MODEL, 2, key=getkey()),
    )
    series, labels = jr.normal(getkey(), (4, 6, 3)), jnp.array([0, 1, 1, 0])
    optimizer = optax.sgd(0.01)

    def loss(model):
        logits = jax.vmap(model)(series)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    @eqx.filter_jit
    def train_step(model, state):
        value, gradient = eqx.filter_value_and_grad(loss)(model)
        updates, state = optimizer.update(gradient, state)
        return value, eqx.apply_updates(model, updates), state

    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    before, trained, state = train_step(model, state)
    after, _, _ = train_step(trained, state)
    assert after < before
    changed = jax.tree.map(
        lambda a, b: np.any(a != b),
        *(eqx.filter(m.backbone, eqx.is_inexact_array) for m in (model, trained)),
    )
    for block in [block for stack in changed.stacks for block in stack.pattern]:
        assert block.mixer_norm.weight
        assert block.feedforward.out_projection.weight
        if hasattr(block.mixer, "memory"):
            assert block.mixer.memory.heads.projections.key.linear.weight
            assert not any(block.mixer.memory.heads.initial_weights)


PROBED = {
    "stacked": (small_config(n_layers=3), [0, 1, 2]),
    "repeated pattern": (
        small_config(n_layers=4, pattern=["transformer", "mac"]),
        [1, 3],
    ),
    "no repeats": (MIXED, [1, 2]),
    "no memory": (small_config(pattern="transformer"), []),
}


@pytest.mark.parametrize(("config", "layers"), PROBED.values(), ids=PROBED.keys())
def test_probe_is_a_step_that_tells_of_the_layers_with_memory(x64, config, layers):
    model, (first, token) = small_model(config), tokens(2)
    _, state = step(model, first, start_of(model))
    logits, after, stats = probe(model, token, state)
    assert_close((logits, after), step(model, token, state))
    assert list(stats) == layers
    blocks_after = blocks_states(model.backbone, after)
    for layer, of_layer in stats.items():
        memory = blocks_after[layer]
        memory = getattr(memory, "memory", memory)
        norms = np.sqrt(
            sum(np.sum(np.square(w), axis=(1, 2)) for w in memory.heads.weights)
        )
        np.testing.assert_allclose(of_layer.weight_norm, norms, rtol=0, atol=1e-9)
        assert of_layer.surprise.shape == (config.memory.n_heads,)
        assert np.all(np.asarray(of_layer.surprise) > 0)
        assert of_layer.gates.keys() == {"decay", "momentum", "learning_rate"}
    # No two layers tell the same.
    assert len({float(s.surprise[0]) for s in stats.values()}) == len(layers)


def blocks_states(backbone, state):
    """The state of each block, first to last."""
    return [
        jax.tree.map(lambda x, n=n: x[n], block)
        for stack, blocks in zip(backbone.stacks, state, strict=True)
        for n in range(stack.n_repeats)
        for block in blocks
    ]


def test_a_stack_tells_of_its_own_blocks(x64):
    config = small_config(n_layers=4, pattern=["transformer", "lmm"])
    backbone, x = small_backbone(config), stream(1)[0]
    (stack,) = backbone.stacks
    states = start_of(stack)
    y, after, stats = probe(stack, x, states)
    assert_close((y, after), step(stack, x, states))
    assert [one is not None for one in stats] == [False, True, False, True]
