import json

import jax.numpy as jnp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.checkpoint.saved_steps import TEMPLATE, save_steps
from tests.hostile import accept_or_refuse, as_json, changed, damaged, few, json_values
from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.document import StepDocument
from titans_eqx.checkpoint.errors import CheckpointError, DamagedError
from titans_eqx.checkpoint.manifest import (
    MANIFEST_NAME,
    check_manifest,
    write_manifest,
)
from titans_eqx.checkpoint.metadata import check_resumable, metadata, saved_config
from titans_eqx.checkpoint.metrics_log import MetricsLog
from titans_eqx.config import RunConfig

CONFIG, PRINTS = RunConfig(), {"train": "a", "eval": "b"}
ITEMS = {"model": {"w": jnp.zeros((2, 3))}}
STEP = StepDocument.of(ITEMS, {"step": 1}).content()
SAVED = json.loads(json.dumps(metadata(CONFIG, PRINTS)))


@few
@given(saved=changed(SAVED).filter(lambda saved: isinstance(saved, dict)))
def test_any_metadata_are_those_of_a_run_or_refused_in_one_line(saved):
    for read in (saved_config, lambda saved: check_resumable(CONFIG, PRINTS, saved)):
        accept_or_refuse(read, saved, refusal=CheckpointError)


@few
@given(content=changed(STEP) | json_values)
@example(content=STEP | {"leaves": {"model": {"model.w": {"dtype": 3}}}})
@example(content=STEP | {"leaves": {"model": {"a\nb": {}}}})
def test_any_document_fits_a_step_or_is_refused_in_one_line(content):
    def read():
        if difference := StepDocument.parse(content).misfit(ITEMS):
            raise CheckpointError(difference)

    accept_or_refuse(read, refusal=(DamagedError, CheckpointError))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a manifest."""
    folder = tmp_path_factory.mktemp("step")
    (folder / "arrays").mkdir()
    for name in ("arrays/weights", "note"):
        (folder / name).write_bytes(name.encode())
    write_manifest(folder)
    return folder


@pytest.fixture(scope="module")
def manifest(folder):
    """What the manifest says."""
    return json.loads((folder / MANIFEST_NAME).read_text())


@few
@given(data=st.data())
def test_any_manifest_fits_its_folder_or_is_refused_in_one_line(folder, manifest, data):
    hostile = data.draw(changed(manifest) | json_values)
    content = as_json(hostile)
    (folder / MANIFEST_NAME).write_bytes(
        data.draw(st.just(content) | damaged(content) | st.binary())
    )
    accept_or_refuse(check_manifest, folder, refusal=DamagedError)


@few
@given(name=st.text() | st.sampled_from(["..", ".", "/", "//", "note/", "a\0b"]))
@example(name="\ud800")
@example(name="a" * 300)
def test_any_name_in_a_manifest_is_refused_in_one_line(folder, manifest, name):
    entry = {"bytes": 0, "sha256": ""}
    files = manifest["files"] | {name: entry}
    (folder / MANIFEST_NAME).write_bytes(as_json(manifest | {"files": files}))
    accept_or_refuse(check_manifest, folder, refusal=DamagedError)


METADATA_OF_ORBAX = {
    "no table": b"[]",
    "no handlers": b'{"item_handlers": 3}',
    "no time": b'{"init_timestamp_nsecs": "x"}',
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("read_only", [False, True])
def test_any_metadata_of_orbax_are_damage_of_their_step(tmp_path, read_only):
    save_steps(tmp_path, 1, 2)
    path = tmp_path / "2" / "_CHECKPOINT_METADATA"
    for content in METADATA_OF_ORBAX.values():
        path.write_bytes(content)
        with Checkpoints(tmp_path, read_only=True) as checkpoints:
            assert checkpoints.read_metadata() == (1, {"at": 1})
    with Checkpoints(tmp_path, read_only=read_only) as checkpoints:
        restored = checkpoints.restore_latest(TEMPLATE)
    assert restored is not None
    assert restored.step == 1
    assert restored.refused[0].startswith("step 2 is damaged: _CHECKPOINT_METADATA")


@few
@given(content=st.binary() | damaged(b'{"step": 1}\n{"step": 2, "loss": 3.5}\n'))
def test_any_metrics_are_sorted_into_kept_and_discarded(emptied, content):
    path = emptied() / "metrics.jsonl"
    path.write_bytes(content)
    log = MetricsLog(path)
    log.truncate_after(1)
    log.write({"step": 2})
    for line in path.read_bytes().splitlines():
        assert json.loads(line).get("step", 0) <= 2
