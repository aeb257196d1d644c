import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.memory.problems import D, draw_problem
from tests.models.small import small_config, small_model, tokens
from titans_eqx.config import AttentionConfig, MemoryConfig, ModelConfig
from titans_eqx.memory import MemoryNet, TitansRule, scan_chunks
from titans_eqx.memory import scan as memory_scan
from titans_eqx.models import build_model, mac
from titans_eqx.nn.flops import count_flops
from titans_eqx.nn.remat import recomputing, remat, save_for_backward
from titans_eqx.sharding.varying import scan


def test_saved_products_are_not_done_again(getkey):
    w, x = jr.normal(getkey(), (2, 3, 3)), jr.normal(getkey(), (5, 2, 3, 3))

    def gradient(transform):
        def body(carry, x):
            y = jnp.tanh(save_for_backward(jnp.einsum("hij,hjk->hik", carry, x)))
            return carry + y, y

        def loss(w, x):
            return jnp.sum(scan(transform(body), w, x)[1] ** 2)

        return jax.grad(loss, argnums=(0, 1))

    plain = count_flops(gradient(lambda body: body), w, x)
    assert count_flops(gradient(remat), w, x) == plain
    assert count_flops(gradient(jax.checkpoint), w, x) > plain
    for ours, theirs in zip(
        gradient(remat)(w, x), gradient(lambda body: body)(w, x), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize(
    "pattern", [pytest.param("mac", marks=pytest.mark.slow), "mag"]
)
def test_a_training_step_redoes_few_products(monkeypatch, pattern):
    config = ModelConfig(
        pattern=pattern,
        d_model=64,
        n_layers=2,
        vocab_size=12,
        memory=MemoryConfig(
            n_heads=2, chunk_len=16, kernel_size=3, max_learning_rate=0.5
        ),
        attention=AttentionConfig(n_heads=2, segment_len=16, window=16, n_persistent=2),
    )
    model = eqx.filter_eval_shape(build_model, config, key=jr.key(0))
    arrays, static = eqx.partition(model, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    tokens = jax.ShapeDtypeStruct((2, 64), jnp.int32)

    def gradient_flops(transform):
        for module in (memory_scan, mac):
            monkeypatch.setattr(module, "remat", transform)

        def loss(arrays, tokens):
            model = eqx.combine(arrays, static)
            return jnp.sum(jax.vmap(lambda row: model(row)[0])(tokens))

        return count_flops(jax.grad(loss), arrays, tokens)

    plain = gradient_flops(lambda body: body)
    assert gradient_flops(remat) <= 1.08 * plain
    assert gradient_flops(jax.checkpoint) >= 1.12 * plain


def read_chunks(problem):
    rule, net = TitansRule(chunk_len=2), MemoryNet(D, depth=1)
    return scan_chunks(rule, net, *problem[:2], initial=problem.initial)[0]


def draw(name):
    """A function and what its gradient is taken by."""
    if name == "chunks":
        rule, net = TitansRule(chunk_len=2), MemoryNet(D, depth=1)
        return read_chunks, draw_problem(rule, net, n_tokens=5)
    model = small_model(small_config(pattern="transformer"))
    return lambda model: model(tokens(7))[0], model


@pytest.mark.parametrize(
    ("name", "level"), [("chunks", "everything"), ("blocks", "block")]
)
@pytest.mark.usefixtures("x64")
def test_gradients_do_not_depend_on_what_is_run_again(name, level):
    function, argument = draw(name)

    @eqx.filter_jit
    def gradient(argument, level):
        def loss(argument):
            with recomputing(level):
                return jnp.sum(function(argument) ** 2)

        return eqx.filter_grad(loss)(argument)

    kept, again = (jax.tree.leaves(gradient(argument, x)) for x in ("none", level))
    assert any(np.any(leaf != 0) for leaf in kept)
    for one, other in zip(kept, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
