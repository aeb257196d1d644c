import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from titans_eqx.errors import UserError
from titans_eqx.generation import Sampling

N_DRAWS = 4000
FILTERS = {
    "none": Sampling(),
    "hot": Sampling(temperature=2.0),
    "cold": Sampling(temperature=0.5),
    "top_k": Sampling(top_k=3),
    "top_k of one": Sampling(top_k=1),
    "top_k of all": Sampling(top_k=7),
    "top_k above all": Sampling(top_k=100),
    "top_p": Sampling(top_p=0.6),
    "tiny top_p": Sampling(top_p=1e-6),
    "top_p below float32": Sampling(top_p=1e-46),
    "min_p": Sampling(min_p=0.3),
    "min_p of one": Sampling(min_p=1.0),
    "hot min_p": Sampling(temperature=2.0, min_p=0.3),
    "top_k and top_p": Sampling(top_k=4, top_p=0.7),
    "everything": Sampling(temperature=1.5, top_k=5, top_p=0.9, min_p=0.25),
}


def random_logits(seed):
    return np.random.default_rng(seed).normal(size=7).astype(np.float32)


def expected_probabilities(sampling, logits):
    """The distribution that the options mean, one token after the other."""
    weights = np.exp(logits.astype(np.float64) / sampling.temperature)
    order = sorted(range(logits.size), key=lambda token: -weights[token])
    if sampling.top_k > 0:
        order = order[: sampling.top_k]
    total, reached, kept = sum(weights[token] for token in order), 0.0, []
    for token in order:
        if reached < sampling.top_p:
            kept.append(token)
        reached += weights[token] / total
    kept = [token for token in kept if weights[token] >= sampling.min_p * max(weights)]
    probabilities = np.zeros(logits.size)
    probabilities[kept] = weights[kept]
    return probabilities / probabilities.sum()


@eqx.filter_jit
def draw_each(sampling, logits, keys):
    return jax.vmap(lambda key: sampling(logits, key=key))(keys)


keep = eqx.filter_jit(lambda sampling, logits: sampling._filter(logits))


def draw(sampling, logits, n_draws=N_DRAWS):
    keys = jr.split(jr.key(5), n_draws)
    return np.asarray(draw_each(sampling.traced(), jnp.asarray(logits), keys))


@pytest.mark.parametrize("name", FILTERS)
def test_draws_follow_the_distribution_that_the_filters_leave(name):
    sampling, logits = FILTERS[name], random_logits(seed=2)
    expected = expected_probabilities(sampling, logits)
    counts = np.bincount(draw(sampling, logits), minlength=logits.size)
    assert np.all(counts[expected == 0] == 0)
    spread = np.sqrt(expected * (1 - expected) / N_DRAWS)
    assert np.all(np.abs(counts / N_DRAWS - expected) <= 5 * spread)


@pytest.mark.parametrize("name", FILTERS)
def test_exactly_the_allowed_tokens_are_kept(name):
    sampling = FILTERS[name]
    for seed in range(20):
        logits = random_logits(seed)
        kept = keep(sampling.traced(), jnp.asarray(logits) / sampling.temperature)
        allowed = expected_probabilities(sampling, logits) > 0
        np.testing.assert_array_equal(np.isfinite(kept), allowed)


def test_temperature_zero_takes_the_likeliest_token():
    for seed in range(5):
        logits = random_logits(seed)
        sampling = Sampling(temperature=0.0, top_k=2, top_p=0.5, min_p=0.5)
        drawn = draw(sampling, logits, n_draws=20)
        assert np.all(drawn == np.argmax(logits))


def test_values_are_no_part_of_what_is_compiled():
    n_compiled = 0

    @eqx.filter_jit
    def count(sampling, logits):
        nonlocal n_compiled
        n_compiled += 1
        return sampling(logits, key=jr.key(0)), sampling.is_stop(jnp.int32(3))

    logits = jnp.asarray(random_logits(0))
    stopping = Sampling(temperature=0.0, top_k=10**12, stop_tokens=(4, 3))
    for sampling in (*FILTERS.values(), stopping):
        _, is_stop = count(sampling.traced(n_stops=8), logits)
        assert is_stop == (3 in sampling.stop_tokens)
    assert n_compiled == 1


def test_same_key_draws_the_same_token():
    sampling, logits = Sampling(), jnp.asarray(random_logits(0))
    first, again = (sampling(logits, key=jr.key(3)) for _ in range(2))
    assert first == again
    assert first.dtype == jnp.int32
    assert len({int(sampling(logits, key=jr.key(i))) for i in range(20)}) > 1


def test_tokens_that_cannot_be_are_never_drawn():
    logits = np.asarray([0.0, -np.inf, 1.0, -np.inf], np.float32)
    for sampling in (Sampling(), Sampling(top_k=3), Sampling(top_p=0.99)):
        assert set(draw(sampling, logits, n_draws=200).tolist()) == {0, 2}


def test_stop_tokens_are_recognised():
    sampling = Sampling(stop_tokens=(3, 5))
    stops = [int(t) for t in range(8) if sampling.is_stop(jnp.int32(t))]
    assert stops == [3, 5]
    assert not Sampling().is_stop(jnp.int32(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be .*at least 0, got -0.1"),
        ({"temperature": float("nan")}, "temperature must be .*at least 0, got nan"),
        ({"temperature": float("inf")}, "temperature must be .*at least 0, got inf"),
        ({"top_k": -1}, r"top_k must be at least 0 \(0 = all\), got -1"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, r"top_p must be in \(0, 1\], got 1.1"),
        ({"top_p": float("nan")}, r"top_p must be in \(0, 1\], got nan"),
        ({"min_p": -0.1}, r"min_p must be in \[0, 1\], got -0.1"),
        ({"min_p": 1.5}, r"min_p must be in \[0, 1\], got 1.5"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message) as caught:
        Sampling(**options)
    assert "\n" not in str(caught.value)


def test_half_precision_draws_as_often_as_single():
    logits = np.tile(random_logits(2).astype(jnp.bfloat16), 200)  # many that tie
    first = logits.size // 10
    drawn = draw(Sampling(), logits)
    share = np.mean(drawn < first)
    assert abs(share - 0.1) < 5 * np.sqrt(0.1 * 0.9 / N_DRAWS)


def test_a_temperature_beyond_float32_makes_all_tokens_alike():
    drawn = draw(Sampling(temperature=1e300), random_logits(0), 200)
    assert set(drawn.tolist()) == set(range(7))
