import contextlib
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

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
        pieces = stream.write(20, key=jr.key(1), sampling=sampling)
        return np.concatenate(list(pieces))

    whole = Stream(model)
    whole.read(TOKENS)
    save_session(tmp_path / "s", model, whole.state)
    wanted = write(whole)
    resumed = Stream(model, load_session(tmp_path / "s", model))
    np.testing.assert_array_equal(write(resumed), wanted)


def test_other_weights_options_or_sizes_are_refused(saved):
    wider = CONFIG.model_copy(update={"d_model": 16})
    memory = CONFIG.memory.model_copy(update={"clip": 2.0})
    other_rule = CONFIG.model_copy(update={"memory": memory})
    for model in (build(1), build(config=wider), build(config=other_rule)):
        with pytest.raises(SessionError, match="saved with another model"):
            load_session(saved, model)


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


def test_pickled_and_oversized_arrays_are_refused(read, saved, tmp_path):
    for name, array in (
        ("0", np.array([{"a": 1}], dtype=object)),
        ("0", np.zeros(10_000_000, np.uint8)),
    ):
        hostile = tmp_path / "hostile"
        with (
            zipfile.ZipFile(saved) as good,
            zipfile.ZipFile(hostile, "w", zipfile.ZIP_DEFLATED) as bad,
        ):
            for info in good.infolist():
                with bad.open(info.filename, "w") as file:
                    if info.filename == f"{name}.npy":
                        np.lib.format.write_array(file, array, allow_pickle=True)
                    else:
                        file.write(good.read(info))
        with pytest.raises(SessionError, match="damaged"):
            load_session(hostile, read[0])


def test_a_missing_session_says_how_to_make_one(read, tmp_path):
    with pytest.raises(SessionError, match="there is no session"):
        load_session(tmp_path / "none", read[0])


def test_no_damage_is_more_than_one_clear_error(read, saved, monkeypatch):
    """Any byte of the header's or the directory's part of the file, one at a time."""
    model, state = read
    # The model's hash and shapes do not change, and take most of the time.
    print_of_model = fingerprint(model)
    monkeypatch.setattr(session, "fingerprint", lambda model: print_of_model)
    monkeypatch.setattr(session, "_state_template", lambda model: state)
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
