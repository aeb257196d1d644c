import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from titans_eqx.config import AttentionConfig, MemoryConfig, ModelConfig
from titans_eqx.generation import prefill, prefill_padded
from titans_eqx.models import build_model

pytestmark = pytest.mark.usefixtures("double_precision")

VOCAB, N_TOKENS = 11, 21

run_model = eqx.filter_jit(lambda model, tokens: model(tokens))
run_step = eqx.filter_jit(lambda model, token, state: model.step(token, state))
run_prefill = eqx.filter_jit(prefill)
run_padded = eqx.filter_jit(prefill_padded)


@pytest.fixture(scope="module")
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def model(double_precision):
    config = ModelConfig(
        d_model=8,
        n_layers=1,
        vocab_size=VOCAB,
        tied_embeddings=False,
        memory=MemoryConfig(n_heads=2, chunk_len=4, expansion=1),
        attention=AttentionConfig(n_heads=2, segment_len=8, window=8, n_persistent=2),
    )
    return build_model(config, key=jr.key(2))


@pytest.fixture(scope="module")
def tokens(double_precision):
    return jr.randint(jr.key(1), (N_TOKENS,), 0, VOCAB, jnp.int32)


@pytest.fixture(scope="module")
def whole(model, tokens):
    """Last logits of one run, and the logits after one more token."""
    logits, state = run_model(model, tokens)
    after, _ = run_step(model, tokens[0], state)
    return logits[-1], after


@pytest.mark.parametrize("block_len", [5, N_TOKENS])
def test_result_does_not_depend_on_the_blocks(model, tokens, whole, block_len):
    last, state = run_prefill(model, tokens, block_len=block_len)
    after, _ = run_step(model, tokens[0], state)
    np.testing.assert_allclose(last, whole[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(after, whole[1], rtol=0, atol=1e-9)
    assert not np.allclose(last, after, atol=1e-3)


@pytest.fixture(scope="module")
def by_step(model, tokens):
    """Logits and state after each token, from one program for all lengths."""
    state, after = eqx.filter_jit(lambda model: model.init_state())(model), []
    for token in tokens:
        logits, state = run_step(model, token, state)
        after.append((logits, state))
    return after


@pytest.mark.parametrize("n_tokens", [1, 4, 10, N_TOKENS])
def test_padding_is_never_seen(model, tokens, by_step, n_tokens):
    count = jnp.asarray(n_tokens, jnp.int32)
    last, state = run_padded(model, tokens, count, block_len=4)
    expected, expected_state = by_step[n_tokens - 1]
    np.testing.assert_allclose(last, expected, rtol=0, atol=1e-9)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9),
        state,
        expected_state,
    )


def test_prefill_goes_on_from_a_state(model, tokens, whole):
    _, state = run_prefill(model, tokens[:11])
    last, _ = run_prefill(model, tokens[11:], state)
    np.testing.assert_allclose(last, whole[0], rtol=0, atol=1e-9)


def test_empty_text_is_refused(model):
    with pytest.raises(ValueError, match="at least one token, got none"):
        prefill(model, jnp.zeros((0,), jnp.int32))
