"""A small trained model for the commands that read one."""

import contextlib
import io
from pathlib import Path

import jax
import pytest

CONFIG = """
[model]
d_model = 8
n_layers = 2
pattern = ["transformer", "lmm"]
memory = { rule = "delta", n_heads = 2, depth = 1, norm = false, chunk_len = 4 }
attention = { n_heads = 2, segment_len = 8, window = 8, n_persistent = 1 }

[data]
path = "PATH"
seq_len = 16
eval_fraction = 0.2

[optimizer]
warmup_steps = 1
learning_rate = 3e-2

[train]
steps = 40
batch_size = 4
eval_every = 0
sample_every = 0
log_every = 0
"""


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps; leave it alone."""
    from titans_eqx.config import load_config
    from titans_eqx.training import train

    folder = tmp_path_factory.mktemp("trained")
    text = folder / "text.txt"
    text.write_text("".join(f"line {i} of the text\n" for i in range(100)))
    config = folder / "small.toml"
    config.write_text(CONFIG.replace("PATH", str(text)))
    with (
        jax.numpy_dtype_promotion("standard"),  # optax mixes integers and reals
        contextlib.redirect_stdout(io.StringIO()),
    ):
        train(load_config(config), folder / "run")
    return folder / "run"
