import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tests.models.small import small_config, small_model
from titans_eqx.config import MqarConfig
from titans_eqx.data import TaskExamples, build_task
from titans_eqx.evaluation import StreamScorer
from titans_eqx.evaluation import scorer as module


def test_examples_are_scored_as_streams(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_LEN", 8)
    model = small_model(small_config())
    task = build_task(MqarConfig(vocab_size=12, n_pairs=2))
    examples = list(TaskExamples(task, 19, 5, 0, "train"))
    scored = list(StreamScorer(model, batch_size=4)(examples))
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
