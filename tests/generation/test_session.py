import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.refusal import assert_refused
from titans_eqx.checkpoint.array_file import write_array_file
from titans_eqx.config import AttentionConfig, MemoryConfig, ModelConfig
from titans_eqx.generation import Sampling, Stream, load_session, save_session, session
from titans_eqx.generation.session import SessionError, fingerprint
from titans_eqx.models import build_model

CONFIG = ModelConfig(
    d_model=8,
    n_layers=1,
    memory=MemoryConfig(n_heads=2, chunk_len=4, expansion=2),
    attention=AttentionConfig(n_heads=2, segment_len=8, n_persistent=1),
)
TOKENS = np.arange(21)


def build(seed=0, config=CONFIG):
    return build_model(config, key=jr.key(seed))


@pytest.fixture(scope="module")
def read():
    """A model, and its state after the first tokens."""
    model = build()
    _, state = eqx.filter_jit(model)(jnp.asarray(TOKENS))
    return model, state


@pytest.fixture
def saved(read, tmp_path):
    path = tmp_path / "session"
    save_session(path, *read)
    return path


def test_a_session_comes_back_bit_for_bit(read, saved):
    model, state = read
    loaded = load_session(saved, model)
    assert jax.tree.structure(loaded) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_a_loaded_session_writes_what_one_run_writes(tmp_path):
    model, sampling = build(), Sampling(temperature=0.5)

    def write(stream):
        stream.read(TOKENS[:5])
        drawn = stream.write(20, key=jr.key(1), sampling=sampling)
        return np.concatenate(list(drawn))

    whole = Stream(model)
    whole.read(TOKENS)
    save_session(tmp_path / "s", model, whole.state)
    wanted = write(whole)
    resumed = Stream(model, load_session(tmp_path / "s", model))
    np.testing.assert_array_equal(write(resumed), wanted)


def test_a_conversation_hashes_its_model_once(read, tmp_path, monkeypatch):
    (model, state), hashed = read, []
    monkeypatch.setattr(session, "fingerprint", lambda model: hashed.append(1) or "f")
    kept = session.Session(tmp_path / "s", model)
    for _ in range(3):
        kept.save(state)
    kept.load()
    assert hashed == [1]


def test_a_link_stays_one(read, tmp_path):
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    for _ in range(2):  # once it leads nowhere
        save_session(link, *read)
        assert link.is_symlink()
        assert target.is_file()


def test_other_weights_options_or_sizes_are_refused(saved):
    wider = CONFIG.model_copy(update={"d_model": 16})
    memory = CONFIG.memory.model_copy(update={"clip": 2.0})
    other_rule = CONFIG.model_copy(update={"memory": memory})
    for model in (build(1), build(config=wider), build(config=other_rule)):
        with pytest.raises(SessionError, match="saved with another model"):
            load_session(saved, model)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_neither_saved_nor_read(
    read, saved, tmp_path, value
):
    model, state = read
    broken = jax.tree.map(
        lambda x: jnp.full_like(x, value) if eqx.is_inexact_array(x) else x, state
    )
    before = saved.read_bytes()
    message = "has numbers that are not finite."
    assert_refused(save_session, saved, model, broken, message=message)
    assert saved.read_bytes() == before
    header = {"format": session.FORMAT, "model": fingerprint(model)}
    write_array_file(tmp_path / "broken", broken, header)
    assert_refused(load_session, tmp_path / "broken", model, message=message)


def test_the_state_of_another_model_is_not_saved(read, tmp_path):
    wider = build(config=CONFIG.model_copy(update={"d_model": 16}))
    with pytest.raises(SessionError, match="does not belong to the model"):
        save_session(tmp_path / "s", wider, read[1])
    assert not (tmp_path / "s").exists()


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE = {
    "flipped": flip,
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"not a session",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_one_clear_error(read, saved, damage):
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(SessionError, match="damaged") as error:
        load_session(saved, read[0])
    assert "\n" not in str(error.value)


def rewrite(saved, hostile, changes, method=zipfile.ZIP_STORED):
    """A copy of a session in which members have other content."""
    with (
        zipfile.ZipFile(saved) as good,
        zipfile.ZipFile(hostile, "w", method) as bad,
    ):
        for info in good.infolist():
            content = changes.get(info.filename, good.read(info))
            bad.writestr(info.filename, content)


def test_arrays_of_another_size_are_refused(read, saved, tmp_path):
    hostile = tmp_path / "hostile"
    for content in (bytes(10_000_000), b"", pickle_of_an_object()):
        rewrite(saved, hostile, {"data": content})
        with pytest.raises(SessionError, match="damaged"):
            load_session(hostile, read[0])


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_compressed_file_is_refused_unread(read, saved, tmp_path, method):
    rewrite(saved, tmp_path / "bomb", {}, method)
    message = "header.json is compressed"
    assert_refused(load_session, tmp_path / "bomb", read[0], message=message)


def pickle_of_an_object():
    file = io.BytesIO()
    array = np.array([{"a": 1}], dtype=object)
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


HEADERS = {
    "no JSON": b"{",
    "no table": b"[]",
    "incomplete": b"{}",
    "too deep": b"[" * 100_000,
    "too long": b" " * (16 * 2**20 + 1),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_of_another_kind_is_refused(read, saved, tmp_path, name):
    rewrite(saved, tmp_path / "hostile", {"header.json": HEADERS[name]})
    with pytest.raises(SessionError, match="damaged"):
        load_session(tmp_path / "hostile", read[0])


def test_a_session_of_another_version_is_refused_by_its_name(read, saved, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    with old.open("wb") as file:
        np.savez(file, header=np.frombuffer(b'{"format": 2}', np.uint8))
    with zipfile.ZipFile(saved) as archive:
        header = json.loads(archive.read("header.json"))
    header |= {"format": 9, "titans_eqx": "7.0"}
    rewrite(saved, new, {"header.json": json.dumps(header)})
    for path, version in ((old, "0.1"), (new, "7.0")):
        message = f"{path} was written by titans_eqx {version}"
        assert_refused(load_session, path, read[0], message=message)


def test_fingerprints_are_equal_in_every_process(read):
    statics = eqx.filter(read[0], eqx.is_array, inverse=True)
    assert "0x" not in repr(jax.tree.structure(statics))
    assert fingerprint(build()) == fingerprint(read[0])


class Bent(eqx.Module):
    bend: Callable  # no static field, so a leaf
    scale: float
    fixed: Callable = eqx.field(static=True, default=jax.nn.relu)


def test_a_fingerprint_tells_functions_and_numbers_apart_and_no_addresses(monkeypatch):
    parts = Bent(jax.nn.silu, 1.0), Bent(jax.nn.relu, 1.0), Bent(jax.nn.silu, 2.0)
    assert len({fingerprint(part) for part in parts}) == 3
    again = Bent(jax.nn.silu, 1.0, jax.nn.relu)
    assert fingerprint(again) == fingerprint(parts[0])
    hashed = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(
        session.hashlib, "sha256", lambda text: hashed.append(text) or sha256(text)
    )
    fingerprint(parts[0])
    assert b"silu" in hashed[0]
    assert b"0x" not in hashed[0]


def test_a_missing_session_says_how_to_make_one(read, tmp_path):
    with pytest.raises(SessionError, match="there is no session"):
        load_session(tmp_path / "none", read[0])


def test_no_damage_is_more_than_one_clear_error(read, saved, monkeypatch):
    """Any byte of the header's or the directory's part of the file, one at a time."""
    model, _ = read
    # The model's hash and shapes do not change, and take most of the time.
    print_of_model, template = fingerprint(model), session._state_template(model)
    monkeypatch.setattr(session, "fingerprint", lambda model: print_of_model)
    monkeypatch.setattr(session, "_state_template", lambda model: template)
    whole = saved.read_bytes()
    n_refused = 0
    for place in [*range(0, 400, 3), *range(len(whole) - 1500, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        saved.write_bytes(damaged)
        # A byte that nobody reads does no harm.
        with contextlib.suppress(SessionError):
            load_session(saved, model)
            continue
        n_refused += 1
    assert n_refused > 500
