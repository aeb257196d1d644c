import hashlib
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.refusal import assert_refused
from titans_eqx.checkpoint.array_file import (
    read_array_file,
    read_header,
    write_array_file,
)

TREE = {
    "half": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3),
    "empty": [jnp.zeros((0, 2))],
    "scalar": jnp.int32(-7),
    "flags": jnp.asarray([True, False]),
}


@pytest.fixture
def path(tmp_path):
    write_array_file(tmp_path / "file", TREE, {"format": 1})
    return tmp_path / "file"


def test_arrays_come_back_exactly(path):
    restored = read_array_file(path, jax.eval_shape(lambda: TREE))
    assert jax.tree.structure(restored) == jax.tree.structure(TREE)
    for one, other in zip(
        jax.tree.leaves(restored), jax.tree.leaves(TREE), strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_the_header_says_what_was_given_and_what_is_there(path):
    header = read_header(path, TREE)
    assert header["format"] == 1
    assert header["leaves"]["half"] == {"dtype": "bfloat16", "shape": [2, 3]}


def test_other_templates_are_refused_by_path(path):
    template = TREE | {"scalar": jnp.float32(0)}
    message = "scalar is int32[] in what was saved, expected float32[]"
    assert_refused(read_array_file, path, template, message=message)


def test_what_cannot_be_read_or_written_is_refused(tmp_path):
    assert_refused(read_header, tmp_path, TREE, message="cannot read")
    arguments = (tmp_path / "no" / "file", TREE, {})
    assert_refused(write_array_file, *arguments, message="cannot write")
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "none", TREE)


def test_too_few_data_are_damage_even_with_their_checksum(path):
    header = read_header(path, TREE) | {"sha256": hashlib.sha256(b"").hexdigest()}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps(header))
        archive.writestr("data", b"")
    message = "is damaged or of another kind: ValueError('data has 0 bytes, not 18')"
    assert_refused(read_array_file, path, TREE, message=message)
