import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from titans_eqx.config import AttentionConfig, MemoryConfig, ModelConfig
from titans_eqx.generation import Sampling, generate, generate_batch, prefill
from titans_eqx.models import build_model

pytestmark = pytest.mark.usefixtures("double_precision")

VOCAB, PROMPT_LEN, N_TOKENS = 11, 5, 14  # the end of a segment lies in between
# The seeds of the models are such that the likeliest token changes all the time.
GREEDY = Sampling(temperature=0.0)

run_model = eqx.filter_jit(lambda model, tokens: model(tokens))
run_step = eqx.filter_jit(lambda model, token, state: model.step(token, state))
run_prefill = eqx.filter_jit(prefill)


@pytest.fixture(scope="module")
def double_precision():
    with jax.enable_x64(True):
        yield


def build_small(pattern, seed):
    config = ModelConfig(
        pattern=pattern,
        d_model=8,
        n_layers=1,
        vocab_size=VOCAB,
        tied_embeddings=False,
        memory=MemoryConfig(n_heads=2, chunk_len=4, expansion=1),
        attention=AttentionConfig(n_heads=2, segment_len=8, window=8, n_persistent=2),
    )
    return build_model(config, key=jr.key(seed))


@pytest.fixture(scope="module")
def mac(double_precision):
    return build_small("mac", seed=27)


@pytest.fixture(scope="module")
def lmm(double_precision):
    return build_small("lmm", seed=2)


@pytest.fixture(scope="module")
def prompts(double_precision):
    return jr.randint(jr.key(1), (3, PROMPT_LEN), 0, VOCAB, jnp.int32)


def test_a_number_of_tokens_may_be_numpys(lmm, prompts):
    n_tokens = np.int64(3)
    tokens, _ = generate(lmm, prompts[0], n_tokens, key=jr.key(0))
    rows, _ = generate_batch(lmm, [*prompts], n_tokens, key=jr.key(0))
    assert (tokens.shape, rows.shape) == ((3,), (3, 3))
    with pytest.raises(TypeError):
        generate(lmm, prompts[0], np.float64(3.5), key=jr.key(0))


@pytest.fixture(scope="module")
def greedy(mac, prompts):
    """Tokens after the first prompt, and the state after them."""
    return generate(mac, prompts[0], N_TOKENS, key=jr.key(0), sampling=GREEDY)


def step_through(model, prompt, choose, n_tokens):
    """What `generate` should do, one token after the other."""
    logits, state = run_prefill(model, prompt)
    tokens = []
    for i in range(n_tokens):
        tokens.append(int(choose(i, logits)))
        logits, state = run_step(model, jnp.int32(tokens[-1]), state)
    return tokens, logits


def assert_same_future(model, state, other_state):
    token = jnp.int32(1)
    logits, _ = run_step(model, token, state)
    expected, _ = run_step(model, token, other_state)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-9)


def test_greedy_tokens_are_those_of_full_runs_without_a_state(mac, prompts, greedy):
    # Runs of one length, so of one program; the padding comes after what is looked at.
    sequence = np.zeros(PROMPT_LEN + N_TOKENS, np.int32)
    sequence[:PROMPT_LEN] = prompts[0]
    for n_read in range(PROMPT_LEN, sequence.size):
        logits, _ = run_model(mac, jnp.asarray(sequence))
        sequence[n_read] = np.argmax(logits[n_read - 1])
    assert greedy[0].tolist() == sequence[PROMPT_LEN:].tolist()
    assert greedy[0].dtype == jnp.int32
    assert len(set(greedy[0].tolist())) > 5


def test_state_has_read_every_token(mac, prompts, greedy):
    tokens, state = greedy
    _, expected = run_model(mac, jnp.concatenate([prompts[0], tokens]))
    assert_same_future(mac, state, expected)


def test_second_call_with_a_prompt_of_its_own_goes_on(mac, prompts, greedy):
    first, state = greedy
    second, state = generate(
        mac, prompts[1], N_TOKENS, key=jr.key(0), state=state, sampling=GREEDY
    )
    everything = jnp.concatenate([prompts[0], first, prompts[1], second])
    logits, expected_state = run_model(mac, everything)
    likeliest = np.argmax(logits, axis=-1)
    assert second.tolist() == likeliest[-N_TOKENS - 1 : -1].tolist()
    assert first.tolist() == likeliest[PROMPT_LEN - 1 :][:N_TOKENS].tolist()
    assert_same_future(mac, state, expected_state)


@pytest.fixture(scope="module")
def drawn(lmm, prompts):
    return generate(lmm, prompts[0], N_TOKENS, key=jr.key(4))


def test_drawn_tokens_are_those_of_a_loop_of_steps(lmm, prompts, drawn):
    keys = jr.split(jr.key(4), N_TOKENS)
    tokens, _ = step_through(
        lmm, prompts[0], lambda i, logits: Sampling()(logits, key=keys[i]), N_TOKENS
    )
    assert drawn[0].tolist() == tokens


def test_same_key_draws_the_same_tokens(lmm, prompts, drawn):
    again, _ = generate(lmm, prompts[0], N_TOKENS, key=jr.key(4))
    other, _ = generate(lmm, prompts[0], N_TOKENS, key=jr.key(5))
    assert again.tolist() == drawn[0].tolist()
    assert other.tolist() != drawn[0].tolist()


def test_batch_of_prompts_equals_one_after_the_other(lmm, prompts):
    keys = jr.split(jr.key(8), len(prompts))
    together, _ = jax.vmap(lambda p, k: generate(lmm, p, N_TOKENS, key=k))(
        prompts, keys
    )
    alone = [
        generate(lmm, prompt, N_TOKENS, key=key)[0].tolist()
        for prompt, key in zip(prompts, keys, strict=True)
    ]
    assert together.tolist() == alone


def test_prompts_of_unequal_length_draw_what_each_draws_alone(mac, prompts):
    parts = [prompts[0, :1], prompts[1], jnp.tile(prompts[2], 8)[:37]]
    together, states = generate_batch(mac, parts, N_TOKENS, key=jr.key(8))
    for i, key in enumerate(jr.split(jr.key(8), len(parts))):
        alone, state = generate(mac, parts[i], N_TOKENS, key=key)
        assert together[i].tolist() == alone.tolist()
        row = jax.tree.map(lambda x, i=i: x[i], states)
        assert_same_future(mac, row, state)


@pytest.mark.slow
def test_a_batch_goes_on_from_its_states(lmm, prompts):
    # With a state, so that both calls have one program.
    fresh = jax.tree.map(lambda x: jnp.asarray(np.stack([x, x])), lmm.init_state())
    _, states = generate_batch(
        lmm, [prompts[0], prompts[1, :2]], 3, key=jr.key(0), state=fresh
    )
    more, _ = generate_batch(
        lmm, [prompts[2, :1], prompts[2]], N_TOKENS, key=jr.key(1), state=states
    )
    for i, prompt in enumerate((prompts[2, :1], prompts[2])):
        state = jax.tree.map(lambda x, i=i: x[i], states)
        key = jr.split(jr.key(1), 2)[i]
        alone, _ = generate(lmm, prompt, N_TOKENS, key=key, state=state)
        assert more[i].tolist() == alone.tolist()


@pytest.mark.parametrize("lengths", [[], [3, 0]])
def test_a_batch_without_tokens_is_refused(lmm, lengths):
    empty = [np.zeros(n, np.int32) for n in lengths]
    with pytest.raises(ValueError, match=r"at least one token.*lengths \["):
        generate_batch(lmm, empty, 3, key=jr.key(0))


def test_stop_token_is_repeated_and_read_once(lmm, prompts):
    tokens, _ = step_through(
        lmm, prompts[0], lambda _, logits: jnp.argmax(logits), N_TOKENS
    )
    # The first token that is no repetition of an earlier one, a few tokens in.
    end = next(i for i in range(2, N_TOKENS - 2) if tokens[i] not in tokens[:i])
    other = next(t for t in range(VOCAB) if t not in tokens)
    sampling = Sampling(temperature=0.0, stop_tokens=(other, tokens[end]))
    stopped, state = generate(
        lmm, prompts[0], N_TOKENS, key=jr.key(0), sampling=sampling
    )
    assert stopped.tolist() == tokens[:end] + tokens[end : end + 1] * (N_TOKENS - end)
    read = jnp.concatenate([prompts[0], jnp.asarray(tokens[: end + 1], jnp.int32)])
    _, expected = run_model(lmm, read)
    assert_same_future(lmm, state, expected)


def test_prompts_side_by_side_end_each_at_its_own_stop_token(lmm, prompts):
    rows = list(prompts)
    sampling = Sampling(temperature=0.0, stop_tokens=(VOCAB,))  # which none draws
    greedy, _ = generate_batch(lmm, rows, N_TOKENS, key=jr.key(0), sampling=sampling)
    # One row stops early, another later or never.
    stop = int(greedy[0, 3])
    ends = [[*row, stop].index(stop) for row in greedy.tolist()]
    assert len(set(ends)) > 1
    sampling = Sampling(temperature=0.0, stop_tokens=(stop,))
    together, states = generate_batch(
        lmm, rows, N_TOKENS, key=jr.key(0), sampling=sampling
    )
    for i, prompt in enumerate(rows):
        alone, state = generate(lmm, prompt, N_TOKENS, key=jr.key(0), sampling=sampling)
        assert together[i].tolist() == alone.tolist()
        assert_same_future(lmm, jax.tree.map(lambda x, i=i: x[i], states), state)


def test_no_tokens_only_read_the_prompt(lmm, prompts):
    tokens, state = generate(lmm, prompts[0], 0, key=jr.key(0))
    assert tokens.shape == (0,)
    assert_same_future(lmm, state, run_prefill(lmm, prompts[0])[1])


@pytest.mark.parametrize("token", [-1, VOCAB])
def test_tokens_outside_the_vocabulary_are_refused(lmm, token):
    ids = np.array([0, token], np.int32)
    with pytest.raises(ValueError, match=rf"0 to {VOCAB - 1}, .*got {token}\."):
        generate(lmm, jnp.asarray(ids), 3, key=jr.key(0))
    with pytest.raises(ValueError, match=rf"0 to {VOCAB - 1}, .*got {token}\."):
        generate_batch(lmm, [ids[:1], ids], 3, key=jr.key(0))


def test_empty_prompt_is_refused(lmm):
    with pytest.raises(ValueError, match="at least one token"):
        generate(lmm, jnp.zeros((0,), jnp.int32), 3, key=jr.key(0))
