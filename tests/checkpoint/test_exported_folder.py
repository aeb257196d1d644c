import dataclasses
import json
import struct
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import accept_or_refuse, damaged, few
from tests.refusal import assert_refused
from titans_eqx.checkpoint import exported_folder
from titans_eqx.checkpoint.load_model import LoadedModel, load_model
from titans_eqx.checkpoint.run_folder import RunFolder
from titans_eqx.config import AttentionConfig, MemoryConfig, ModelConfig, RunConfig
from titans_eqx.data import ByteTokenizer
from titans_eqx.errors import UserError
from titans_eqx.models import build_model

CONFIG = RunConfig(
    model=ModelConfig(
        d_model=8,
        n_layers=1,
        memory=MemoryConfig(n_heads=2, chunk_len=4, expansion=1),
        attention=AttentionConfig(n_heads=2, segment_len=8, n_persistent=0),
    )
)
MEMORY = "backbone.stacks.0.pattern.0.mixer.memory.heads.initial_weights.0"


@pytest.fixture(scope="module")
def loaded():
    """A model with every pattern of bits in some of its weights."""
    model = build_model(CONFIG.model, key=jr.key(3))
    odd = np.frombuffer(np.array([1, 0x80000001, 0x7FC00001], np.uint32), np.float32)
    model = eqx.tree_at(
        lambda m: m.embedding, model, model.embedding.at[0, :3].set(jnp.asarray(odd))
    )
    return LoadedModel(
        model=model, config=CONFIG, tokenizer=ByteTokenizer(), step=7, refused=()
    )


@pytest.fixture
def exported(loaded, tmp_path):
    loaded.export(tmp_path / "exported")
    return tmp_path / "exported"


def bits(model):
    return [
        np.asarray(x).tobytes()
        for x in jax.tree.leaves(eqx.filter(model, eqx.is_array))
    ]


def test_a_model_comes_back_bit_by_bit(loaded, exported):
    again = load_model(exported)
    assert jax.tree.structure(again.model) == jax.tree.structure(loaded.model)
    assert bits(again.model) == bits(loaded.model)
    assert (again.step, again.config, again.refused) == (7, CONFIG, ())
    assert again.reads_bytes


def test_other_programs_read_the_weights_by_readable_names(loaded, exported):
    from safetensors.numpy import load_file

    arrays = load_file(exported / "model.safetensors")
    assert len(arrays) == len(bits(loaded.model))
    np.testing.assert_array_equal(arrays["embedding"], loaded.model.embedding)
    assert arrays[MEMORY].dtype == np.float32
    assert sorted(path.name for path in exported.iterdir()) == [
        "config.toml",
        "model.safetensors",
    ]


def test_bfloat16_survives(loaded, tmp_path):
    half = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) else x, loaded.model
    )
    LoadedModel(
        model=half, config=CONFIG, tokenizer=ByteTokenizer(), step=1, refused=()
    ).export(tmp_path / "half")
    message = "model.safetensors does not fit config.toml: backbone.norm.weight is "
    assert_refused(load_model, tmp_path / "half", message=message + "bfloat16[8]")
    from titans_eqx.checkpoint.exported_folder import open_exported

    arrays = eqx.filter(half, eqx.is_array)
    template = eqx.filter_eval_shape(lambda: arrays)
    assert bits(open_exported(tmp_path / "half").read_arrays(template)) == bits(half)


def test_only_the_step_that_was_exported_is_there(exported):
    assert load_model(exported, step=7).step == 7
    message = "is an exported model of step 7, and has no step 8"
    assert_refused(partial(load_model, step=8), exported, message=message)


def test_an_exported_average_is_known_as_one(loaded, exported, tmp_path):
    assert not load_model(exported).is_average
    assert not load_model(exported, average=False).is_average
    dataclasses.replace(loaded, is_average=True).export(tmp_path / "average")
    assert load_model(tmp_path / "average").is_average
    read = partial(load_model, average=False)
    message = "has no others. Export the run again with --no-average"
    assert_refused(read, tmp_path / "average", message=message)


def test_nothing_is_written_over(loaded, exported):
    before = [path.read_bytes() for path in sorted(exported.iterdir())]
    assert_refused(loaded.export, exported, message="is not empty")
    assert_refused(RunFolder, exported, message="holds an exported model")
    assert [path.read_bytes() for path in sorted(exported.iterdir())] == before


def test_a_failed_export_leaves_the_folder_for_another(loaded, tmp_path, monkeypatch):
    def fill_the_disk(path, content):
        path.write_bytes(content[:10])
        if path.name == "model.safetensors":
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(exported_folder, "write_durably", fill_the_disk)
        assert_refused(loaded.export, tmp_path, message="No space left on device")
    assert list(tmp_path.iterdir()) == []


def header_of(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_damage_is_refused_in_one_line(exported):
    path = exported / "model.safetensors"
    header, data = header_of(path)
    about = header["__metadata__"]
    flipped = bytes([data[0] ^ 1]) + data[1:]
    cases = {
        "is damaged: Error while deserializing header": path.read_bytes()[:-1],
        "its arrays are not those that were exported (SHA-256)": with_header(
            header, flipped
        ),
        "was not exported by titans_eqx, or in another format": with_header(
            header | {"__metadata__": about | {"titans_eqx_format": "2"}}, data
        ),
        "has been changed: step: ": with_header(
            header | {"__metadata__": about | {"step": "many"}}, data
        ),
        "embedding is not in what was saved, ": with_header(
            {"other" if k == "embedding" else k: v for k, v in header.items()}, data
        ),
    }
    for message, content in cases.items():
        path.write_bytes(content)
        assert_refused(load_model, exported, message=message)
    path.write_bytes(with_header(header, data))
    (exported / "config.toml").write_text("[model")
    assert_refused(load_model, exported, message="config.toml: not valid TOML")
    (exported / "config.toml").unlink()
    assert_refused(load_model, exported, message="config.toml: no such file")


@few
@given(data=st.data())
def test_any_bytes_are_a_model_or_refused_in_one_line(exported_bytes, emptied, data):
    folder = emptied()
    for name, content in exported_bytes.items():
        # The header alone is drawn from: it is what a reader has to understand.
        end = 600 if name.endswith("safetensors") else len(content)
        (folder / name).write_bytes(data.draw(damaged(content[:end])) + content[end:])
    accept_or_refuse(load_model, folder, refusal=UserError)


@pytest.fixture(scope="module")
def exported_bytes(loaded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "exported"
    loaded.export(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}
