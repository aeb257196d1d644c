import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.small import small_config, small_model
from titans_eqx.config import MqarConfig
from titans_eqx.data import TaskExamples, build_task
from titans_eqx.evaluation import StreamScorer
from titans_eqx.evaluation import scorer as module


@pytest.mark.slow
def test_memories_that_start_anew_do_not_make_longer_blocks(monkeypatch):
    model, forget_every = small_model(small_config(n_layers=1)), 22
    task = build_task(MqarConfig(vocab_size=12, n_pairs=2))
    examples = list(TaskExamples(task, 43, 2, 0, "train"))
    expected = list(StreamScorer(model, 2, forget_every=forget_every)(examples))
    lengths, score = [], module.token_loss

    def token_loss(logits, *others):
        lengths.append(logits.shape[1])
        return score(logits, *others)

    monkeypatch.setattr(module, "BLOCK_LEN", 8)
    monkeypatch.setattr(module, "token_loss", token_loss)
    scored = list(StreamScorer(model, 2, forget_every=forget_every)(examples))
    assert max(lengths) <= 8
    for one, other in zip(scored, expected, strict=True):
        np.testing.assert_allclose(one.loss, other.loss, atol=1e-4)


def test_examples_are_scored_as_streams(monkeypatch):
    n_tokens, n_rows, score = 8, set(), module.token_loss

    def token_loss(logits, *others):
        n_rows.add(len(logits))
        return score(logits, *others)

    monkeypatch.setattr(module, "BLOCK_LEN", n_tokens)
    monkeypatch.setattr(module, "token_loss", token_loss)
    name = "titans_eqx.training.accumulate.TOKENS_AT_ONCE_ON_CPU"
    monkeypatch.setattr(name, n_tokens)
    model = small_model(small_config())
    task = build_task(MqarConfig(vocab_size=12, n_pairs=2))
    examples = list(TaskExamples(task, 19, 5, 0, "train"))
    batch_size = 2 * jax.device_count()
    scored = list(StreamScorer(model, batch_size)(examples))
    assert n_rows == {1}  # of the two of each device
    assert len(scored) == 5
    run = eqx.filter_jit(lambda model, ids: model(ids)[0])
    for example, (loss, is_correct) in zip(examples, scored, strict=True):
        logits = np.asarray(run(model, jnp.asarray(example["inputs"])))
        assert loss.shape == is_correct.shape == (19,)
        places = np.flatnonzero(example["mask"])
        targets = example["targets"][places]
        expected = -np.asarray(jax.nn.log_softmax(logits))[places, targets]
        np.testing.assert_allclose(loss[places], expected, atol=1e-4)
        np.testing.assert_array_equal(
            is_correct[places], logits[places].argmax(axis=1) == targets
        )
