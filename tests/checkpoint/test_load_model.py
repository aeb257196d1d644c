import shutil
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.checkpoint.saved_steps import flip_bit
from tests.refusal import assert_refused
from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.load_model import load_model
from titans_eqx.checkpoint.metadata import metadata
from titans_eqx.config import (
    AttentionConfig,
    DataConfig,
    MemoryConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from titans_eqx.data import FileTokenizer, PrepareSettings, prepare
from titans_eqx.models import build_model

CONFIG = RunConfig(
    model=ModelConfig(
        d_model=8,
        n_layers=1,
        memory=MemoryConfig(n_heads=2, chunk_len=4, expansion=1),
        attention=AttentionConfig(n_heads=2, segment_len=8, n_persistent=0),
    )
)


@pytest.fixture(scope="module")
def model():
    return build_model(CONFIG.model, key=jr.key(3))


@pytest.fixture
def run_dir(model, tmp_path):
    """A run with two steps, in the second of which all numbers are doubled."""
    arrays = eqx.filter(model, eqx.is_array)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (1, 2):
            items = {
                "model": jax.tree.map(lambda x, n=step: n * x, arrays),
                "optimizer": {"mean": jnp.ones((100,))},
                "counters": {"step": jnp.int32(step)},
            }
            checkpoints.save(step, items, metadata(CONFIG, {}))
    return tmp_path


def assert_same_model(loaded, model, scale):
    wanted = jax.tree.map(lambda x: scale * x if eqx.is_array(x) else x, model)
    assert jax.tree.structure(loaded) == jax.tree.structure(model)
    assert eqx.tree_equal(loaded, wanted)


def test_the_latest_model_comes_back_exactly(model, run_dir):
    loaded = load_model(run_dir)
    assert_same_model(loaded.model, model, 2)
    assert (loaded.step, loaded.refused, loaded.config) == (2, (), CONFIG)
    assert loaded.tokenizer.decode([104, 105]) == "hi"
    assert loaded.reads_text
    assert loaded.reads_bytes
    logits, _ = loaded.model(jnp.arange(5))
    assert np.all(np.isfinite(logits))


def test_no_optimizer_is_read(model, run_dir):
    for step in ("1", "2"):
        for item in ("optimizer", "counters"):
            shutil.rmtree(run_dir / "checkpoints" / step / item)
    loaded = load_model(run_dir)
    assert_same_model(loaded.model, model, 2)
    assert loaded.refused == ()


def test_damaged_steps_are_named_and_left_alone(model, run_dir):
    flip_bit(run_dir / "checkpoints" / "2" / "model")
    before = sorted(run_dir.rglob("*"))
    loaded = load_model(run_dir)
    assert_same_model(loaded.model, model, 1)
    assert loaded.step == 1
    (line,) = loaded.refused
    assert line.startswith("step 2 is damaged: model/")
    assert sorted(run_dir.rglob("*")) == before


def test_the_step_that_is_named_is_read_or_refused(model, run_dir):
    assert_same_model(load_model(run_dir, step=1).model, model, 1)
    assert load_model(run_dir, step=2).step == 2
    message = f"no step 3 in {run_dir}/checkpoints; the steps there are 1, 2."
    assert_refused(partial(load_model, step=3), run_dir, message=message)
    flip_bit(run_dir / "checkpoints" / "2" / "model")
    loaded = load_model(run_dir, step=1)
    assert (loaded.step, loaded.refused) == (1, ())
    message = f"step 2 in {run_dir}/checkpoints is damaged: model/"
    assert_refused(partial(load_model, step=2), run_dir, message=message, exit_code=4)


def test_the_step_that_is_fallen_back_to_has_its_own_format_and_config(model, tmp_path):
    arrays = {"model": eqx.filter(model, eqx.is_array)}
    memory = CONFIG.model.memory.model_copy(update={"clip": 2.0})
    other = CONFIG.model_copy(
        update={"model": CONFIG.model.model_copy(update={"memory": memory})}
    )
    olders = {
        "(format 99)": metadata(CONFIG, {}) | {"format": 99},
        "are of different models; name one with --step": metadata(other, {}),
    }
    for i, (message, older) in enumerate(olders.items()):
        run_dir = tmp_path / str(i)
        with Checkpoints(run_dir / "checkpoints") as checkpoints:
            checkpoints.save(1, arrays, older)
            checkpoints.save(2, arrays, metadata(CONFIG, {}))
        flip_bit(run_dir / "checkpoints" / "2" / "model")
        assert_refused(load_model, run_dir, message=message)


def test_raw_weights_are_never_taken_for_the_average(model, tmp_path):
    """The average was switched off within the run, and the step since is damaged."""
    arrays = eqx.filter(model, eqx.is_array)
    averaged = CONFIG.model_copy(update={"train": TrainConfig(ema_decay=0.9)})
    both = {"model": arrays, "average": jax.tree.map(lambda x: 2 * x, arrays)}
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, both, metadata(averaged, {}))
        checkpoints.save(2, {"model": arrays}, metadata(CONFIG, {}))
    assert_same_model(load_model(tmp_path).model, model, 1)
    flip_bit(tmp_path / "checkpoints" / "2" / "model")
    message = f"step 1 of {tmp_path} has an average of the weights (train.ema_decay)"
    assert_refused(load_model, tmp_path, message=message)
    assert_same_model(load_model(tmp_path, step=1).model, model, 2)
    raw = load_model(tmp_path, average=False)
    assert_same_model(raw.model, model, 1)
    assert (load_model(tmp_path, step=1).is_average, raw.is_average) == (True, False)


def test_a_model_of_tokens_that_are_no_text_is_refused_on_request(model, tmp_path):
    arrays = eqx.filter(model, eqx.is_array)
    config = CONFIG.model_copy(update={"data": DataConfig(source="task")})
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, {"model": arrays}, metadata(config, {}))
    assert not load_model(tmp_path).reads_text
    with pytest.raises(ValueError, match='"mqar", whose tokens stand for no text'):
        load_model(tmp_path, require_text=True)


def test_a_run_on_shards_has_the_tokenizer_beside_them_and_no_other(model, tmp_path):
    pytest.importorskip("tokenizers")
    text, folder = tmp_path / "text", tmp_path / "shards"
    text.write_text("a text\n" * 50)
    prepare(folder, PrepareSettings(path=str(text), vocab_size=258))
    data = DataConfig(source="shards", path=str(folder))
    fingerprint = FileTokenizer(folder / "tokenizer.json").fingerprint
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        config = CONFIG.model_copy(update={"data": data})
        about = metadata(config, {"tokenizer": fingerprint})
        checkpoints.save(1, {"model": eqx.filter(model, eqx.is_array)}, about)
    loaded = load_model(tmp_path)
    assert loaded.tokenizer.decode(loaded.tokenizer.encode(b"text")) == "text"
    assert loaded.reads_text
    assert not loaded.reads_bytes
    loaded.export(tmp_path / "exported")
    assert load_model(tmp_path / "exported").tokenizer.fingerprint == fingerprint
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes() + b"\n")
    message = f"the tokenizer {tokenizer} is not the one that the tokens were made with"
    assert_refused(load_model, tmp_path, message=message)


def test_runs_of_other_versions_are_refused(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, {"arrays": {"step": jnp.int32(1)}}, {"format": 2})
    message = "the checkpoint was written by titans_eqx 0.1 (format 2)"
    assert_refused(load_model, tmp_path, message=message)


def test_folders_without_a_model_are_refused(tmp_path):
    assert_refused(load_model, tmp_path, message="is no run folder")
    Checkpoints(tmp_path / "checkpoints").close()
    message = "has not saved a checkpoint yet"
    assert_refused(load_model, tmp_path, message=message, exit_code=4)
