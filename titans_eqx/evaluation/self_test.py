"""Whether the software does on this machine what it should, in some seconds."""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.load_model import load_model
from titans_eqx.checkpoint.metadata import metadata
from titans_eqx.config import (
    AttentionConfig,
    DataConfig,
    MemoryConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
)
from titans_eqx.errors import one_line
from titans_eqx.generation import generate
from titans_eqx.models import TitansLM, build_model
from titans_eqx.sharding.mesh import batch_sharding, build_mesh, replicated
from titans_eqx.training.optimizer import build_optimizer
from titans_eqx.training.state import TrainState, init_train_state
from titans_eqx.training.step import build_train_step

# Whatever makes its programs smaller, since compiling them takes nearly all the time.
CONFIG: Final = RunConfig(
    model=ModelConfig(
        pattern="mac",
        d_model=16,
        n_layers=1,
        vocab_size=32,
        memory=MemoryConfig(n_heads=1, depth=1, chunk_len=4, kernel_size=1),
        attention=AttentionConfig(n_heads=1, segment_len=8, n_persistent=1),
    ),
    data=DataConfig(source="task"),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0),
)
LENGTH: Final = 21  # tokens: whole segments and a part of one
N_STEPS: Final = 8
# Of logits near 1. Far above what the order of additions makes, also where products are
# in TF32 or bfloat16; a wrong form is off by more.
TOLERANCE: Final = 3e-2
MAX_REASON: Final = 200


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one check."""

    claim: str
    failure: str  # empty if it held
    seconds: float


def self_test() -> Iterator[Outcome]:
    """Check a tiny model on the devices of this process, one claim after the other."""
    mac = _model(CONFIG.model)
    # The gradient of a memory alone has all that is special in it, and is compiled in
    # half the time.
    lmm = _model(CONFIG.model.model_copy(update={"pattern": "lmm"}))
    checks: list[tuple[str, Callable[[TitansLM], str], TitansLM]] = [
        ("whole sequence = token by token", _forms_agree, mac),
        ("training lowers a finite loss, on all devices", _loss_falls, lmm),
        ("a checkpoint comes back bit by bit", _checkpoint_comes_back, mac),
        ("generation is repeatable", _generation_repeats, mac),
    ]
    for claim, check, model in checks:
        start = time.perf_counter()
        try:
            failure = check(model)
        except Exception as error:  # whatever it is, it is what the user has to know
            failure = one_line(f"{type(error).__name__}: {error}")[:MAX_REASON]
        seconds = time.perf_counter() - start
        yield Outcome(claim=claim, failure=failure, seconds=seconds)


def _model(config: ModelConfig) -> TitansLM:
    """A model with weights of NumPy's: to draw them with jax takes many programs."""
    rng = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        mean = 1.0 if "norm" in jax.tree_util.keystr(path) else 0.0
        values = mean + 0.2 * rng.standard_normal(leaf.shape)
        return jnp.asarray(values.astype(leaf.dtype))

    template = eqx.filter_eval_shape(build_model, config, key=jr.key(0))
    return jax.tree.map_with_path(draw, template)


def _tokens(count: int) -> np.ndarray:
    drawn = np.random.default_rng(0).integers(CONFIG.model.vocab_size, size=count)
    return drawn.astype(np.int32)


def _forms_agree(model: TitansLM) -> str:
    @eqx.filter_jit
    def difference(model: TitansLM, tokens: jax.Array) -> jax.Array:
        whole, _ = model(tokens)

        def step(state, token):
            logits, state = model.step(token, state)
            return state, logits

        _, stepped = jax.lax.scan(step, model.init_state(), tokens)
        return jnp.max(jnp.abs(whole - stepped)) / jnp.max(jnp.abs(whole))

    found = float(difference(model, jnp.asarray(_tokens(LENGTH))))
    return "" if found < TOLERANCE else f"they differ by {found:.2g} of the largest"


def _loss_falls(model: TitansLM) -> str:
    n_rows = len(jax.devices())
    mesh = build_mesh(n_rows)
    optimizer = build_optimizer(CONFIG.optimizer, N_STEPS)
    template, static = eqx.filter_eval_shape(init_train_state, model, optimizer)
    # Adam starts from zeros. Made by NumPy: a step takes its state's memory for the
    # next one, and the model is needed again.
    items = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template.items())
    items["model"] = jax.tree.map(np.array, eqx.filter(model, eqx.is_array))
    state = TrainState.from_items(jax.device_put(items, replicated(mesh)))
    step = build_train_step(optimizer, static, mesh)
    tokens = np.tile(_tokens(LENGTH + 1), (n_rows, 1))
    batch = {
        "inputs": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "mask": np.ones((n_rows, LENGTH), bool),
    }
    batch = jax.device_put(batch, batch_sharding(mesh))
    losses = []
    for _ in range(N_STEPS):
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    if np.all(np.isfinite(losses)) and losses[-1] < losses[0]:
        return ""
    return f"the losses were {', '.join(f'{loss:.3g}' for loss in losses)}"


def _checkpoint_comes_back(model: TitansLM) -> str:
    with tempfile.TemporaryDirectory() as folder:
        with Checkpoints(Path(folder) / "checkpoints") as checkpoints:
            items = {"model": eqx.filter(model, eqx.is_array)}
            checkpoints.save(1, items, metadata(CONFIG, {}))
        loaded = load_model(folder).model
    return "" if eqx.tree_equal(loaded, model) else "the weights are others"


def _generation_repeats(model: TitansLM) -> str:
    prompt = jnp.asarray(_tokens(5))
    first, second = (
        np.asarray(generate(model, prompt, 8, key=jr.key(1))[0]) for _ in range(2)
    )
    is_id = (first >= 0) & (first < CONFIG.model.vocab_size)
    if not is_id.all():
        return f"{first.tolist()} are no token ids"
    return "" if np.array_equal(first, second) else "the same key drew other tokens"
