import io
import json
import zipfile

import jax.random as jr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile import accept_or_refuse, as_json, changed, damaged, few, json_values
from titans_eqx.config import ModelConfig
from titans_eqx.generation import load_session, save_session, session
from titans_eqx.generation.session import SessionError
from titans_eqx.models import build_model

CONFIG = ModelConfig.model_validate(
    {
        "pattern": "transformer",
        "d_model": 4,
        "n_layers": 1,
        "vocab_size": 4,
        "attention": {"n_heads": 1, "window": 2, "n_persistent": 0},
    }
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model, its session, and that session's bytes and header."""
    model = build_model(CONFIG, key=jr.key(0))
    path = tmp_path_factory.mktemp("session") / "s"
    save_session(path, model, model.init_state())
    with zipfile.ZipFile(path) as archive:
        header = json.loads(archive.read("header.json"))
    with pytest.MonkeyPatch.context() as patch:
        # Neither changes, and they take most of the time.
        fingerprint, template = header["model"], session._state_template(model)
        patch.setattr(session, "fingerprint", lambda model: fingerprint)
        patch.setattr(session, "_state_template", lambda model: template)
        yield model, path, path.read_bytes(), header


def read(saved, content):
    model, path, *_ = saved
    path.write_bytes(content)
    accept_or_refuse(load_session, path, model, refusal=SessionError)


@few
@given(data=st.data())
def test_any_file_is_a_session_or_refused_in_one_line(saved, data):
    read(saved, data.draw(damaged(saved[2])))


@few
@given(data=st.data())
def test_any_header_is_a_session_or_refused_in_one_line(saved, data):
    header = data.draw(changed(saved[3]) | json_values)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("header.json", as_json(header))
        archive.writestr("data", data.draw(st.binary(max_size=300)))
    read(saved, buffer.getvalue())
