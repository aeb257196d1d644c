"""Runs small enough to train inside a test."""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import pytest

TEXT = "".join(f"def f{i}(x):\n    return x + {i * i % 97}\n" for i in range(120))

SMALL: Mapping[str, Mapping[str, Any]] = {
    "model": {"pattern": "lmm", "d_model": 8, "n_layers": 1},
    "data": {"seq_len": 16, "eval_fraction": 0.2},
    "optimizer": {"warmup_steps": 1, "learning_rate": 1e-2},
    "train": {
        "steps": 6,
        "batch_size": 4,
        "eval_every": 2,
        "eval_examples": 6,
        "checkpoint_every": 2,
        "log_every": 1,
        "sample_every": 0,
        "sample_len": 6,
    },
}
# Of all memories the quickest to compile; most tests are about a run, not its memory.
MEMORY = {"rule": "delta", "n_heads": 2, "depth": 1, "norm": False, "chunk_len": 4}
ATTENTION = {"n_heads": 2, "segment_len": 8, "window": 8, "n_persistent": 2}


@pytest.fixture(scope="session")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """A function that makes a small run, with `section__key=value` for other values."""
    text = tmp_path_factory.mktemp("texts") / "text.py"
    text.write_text(TEXT)

    def make(**changes: Any) -> object:
        # Not at top level: see the conftest above this one.
        from titans_eqx.config import RunConfig

        table = {name: dict(keys) for name, keys in SMALL.items()}
        table["model"] |= {"memory": dict(MEMORY), "attention": dict(ATTENTION)}
        table["data"]["path"] = str(text)
        table["mesh"] = {}
        for name, value in changes.items():
            *sections, key = name.split("__")
            target = table
            for section in sections:
                target = target[section]
            target[key] = value
        return RunConfig.model_validate(table)

    return make


@pytest.fixture(scope="module")
def optax_promotion() -> Iterator[None]:
    """Let integers and reals mix, as optax's own arithmetic does."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def leaves_by_path() -> Callable[[Any], dict[str, Any]]:
    """A function from a tree to its leaves by the path that leads to them."""

    def collect(tree: Any) -> dict[str, Any]:
        return {
            jax.tree_util.keystr(path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }

    return collect


@pytest.fixture(scope="module")
def double_precision() -> Iterator[None]:
    """Run a module with 64-bit numbers as the default."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def train_quietly() -> Callable[..., str]:
    """A function that trains and returns what it printed."""

    def run(config: Any, folder: Path, **options: Any) -> str:
        from titans_eqx.training import train

        with (
            jax.numpy_dtype_promotion("standard"),  # optax mixes integers and reals
            contextlib.redirect_stdout(io.StringIO()) as printed,
        ):
            train(config, folder, **options)
        return printed.getvalue()

    return run


@pytest.fixture(scope="session")
def finished_run(
    small_config: Callable,
    train_quietly: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Any, Path, str]:
    """Config, folder and output of a run that nothing interrupted; leave it alone."""
    config = small_config(train__sample_every=3)
    folder = tmp_path_factory.mktemp("finished") / "run"
    return config, folder, train_quietly(config, folder)


@pytest.fixture(scope="session")
def tiny_run(
    small_config: Callable,
    train_quietly: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Any, Path]:
    """Config and folder of two steps without memory; copy it to go on with it."""
    config = small_config(model__pattern="transformer", train__steps=2)
    folder = tmp_path_factory.mktemp("tiny") / "run"
    train_quietly(config, folder)
    return config, folder
