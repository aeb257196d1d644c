"""A stream on few compiled programs, whatever is asked of it."""

import logging

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.models.small import VOCAB, small_config, small_model
from titans_eqx.generation import Sampling, Stream, generate
from titans_eqx.generation.stream import SHORT_LEN, STEPS_LEN
from titans_eqx.training.precision import in_mixed_precision

OTHERS = [
    (Sampling(temperature=0.0), 3, 0),
    (Sampling(temperature=0.5, top_k=4), STEPS_LEN, 1),
    (Sampling(temperature=2.0, top_p=0.5, min_p=0.1), 2 * STEPS_LEN + 5, 2),
    (Sampling(stop_tokens=(1, 2)), STEPS_LEN + 1, 3),
]


@pytest.fixture(scope="module")
def model():
    return small_model(small_config(pattern="mac", n_layers=1))


def text(n):
    return np.random.default_rng(0).integers(VOCAB, size=n).astype(np.int32)


@pytest.fixture
def compiled(caplog):
    """A function that says what was compiled since its last call."""
    caplog.set_level(logging.WARNING)

    def since():
        said = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return [
            line.split(" with ")[0] for line in said if line.startswith("Compiling")
        ]

    with jax.log_compiles():
        yield since


def test_a_model_in_mixed_precision_is_a_stream_too(model):
    mixed = in_mixed_precision(model)
    stream = Stream(mixed)
    stream.read(text(5))
    sampling = Sampling(temperature=0.0)
    written = [*stream.write(4, key=jr.key(0), sampling=sampling)]
    expected, _ = generate(
        mixed, jnp.asarray(text(5)), 4, key=jr.key(0), sampling=sampling
    )
    np.testing.assert_array_equal(np.ravel(written), expected)


def test_other_values_compile_nothing(model, compiled):
    def converse(prompt, sampling, n_tokens, seed):
        stream = Stream(model)
        stream.read(prompt)
        list(stream.write(n_tokens, key=jr.key(seed), sampling=sampling))

    converse(text(5), Sampling(), STEPS_LEN, seed=9)
    compiled()
    for n_read, (sampling, n_tokens, seed) in enumerate(OTHERS, start=1):
        converse(text(20 * n_read), sampling, n_tokens, seed)
    assert compiled() == []


def test_generate_compiles_for_few_numbers_of_tokens(model, compiled):
    prompt, key = jnp.asarray(text(5)), jr.key(0)
    longest, _ = generate(model, prompt, 32, key=key)
    assert any("generate" in line for line in compiled())
    for n_tokens in (17, 23, 31):
        tokens, _ = generate(model, prompt, n_tokens, key=key)
        assert tokens.tolist() == longest[:n_tokens].tolist()
    generate(model, prompt, 20, key=key, sampling=Sampling(temperature=0.0, top_k=3))
    assert not any("generate" in line for line in compiled())


def test_a_negative_number_of_tokens_is_refused(model):
    with pytest.raises(ValueError, match="at least 0, got -3"):
        generate(model, jnp.asarray(text(5)), -3, key=jr.key(0))


@pytest.mark.parametrize("token", [-1, VOCAB])
def test_tokens_outside_the_vocabulary_are_refused(model, token):
    """Among others a negative one, which the programs take for one to draw."""
    with pytest.raises(ValueError, match=rf"0 to {VOCAB - 1}, .*got {token}\."):
        Stream(model).read(np.array([0, token]))


@pytest.mark.usefixtures("x64")
def test_short_and_long_texts_are_read_alike():
    model, ids = (
        small_model(small_config(pattern="mac", n_layers=1)),
        text(SHORT_LEN + 60),
    )
    at_once, in_parts = Stream(model), Stream(model)
    at_once.read(ids)
    for part in (ids[:1], ids[1:40], ids[40:], ids[:0]):
        in_parts.read(part)
    logits, state = eqx.filter_jit(model)(jnp.asarray(ids))
    for stream in (at_once, in_parts):
        np.testing.assert_allclose(stream._logits, logits[-1], atol=1e-9)
        for one, other in zip(
            jax.tree.leaves(stream.state), jax.tree.leaves(state), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-9)
