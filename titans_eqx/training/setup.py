"""Everything a run needs, built from its config before anything is compiled."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax
from jax.sharding import Mesh

from titans_eqx.config import ConfigError, DataConfig, RunConfig
from titans_eqx.data import (
    Corpus,
    Tokenizer,
    TokenRows,
    TrainBatches,
    load_tokenizer,
    open_corpora,
)
from titans_eqx.models import build_model
from titans_eqx.training.mesh import build_mesh, replicated
from titans_eqx.training.optimizer import build_optimizer
from titans_eqx.training.step import Statics, TrainState, init_train_state


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What is trained on and what is held out."""

    tokenizer: Tokenizer
    train: Corpus
    held_out: Corpus
    batches: TrainBatches
    held_out_rows: TokenRows

    @property
    def fingerprints(self) -> dict[str, str]:
        """What must stay the same when a run goes on."""
        return {
            "tokenizer": self.tokenizer.fingerprint,
            "train": self.train.fingerprint,
            "held_out": self.held_out.fingerprint,
        }


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A run before its first step."""

    config: RunConfig
    texts: Texts
    mesh: Mesh
    optimizer: optax.GradientTransformation
    statics: Statics
    state: TrainState  # arrays, or their shapes if the setup is abstract


def open_texts(config: RunConfig) -> Texts:
    """Open the texts and check that they are enough.

    Args:
        config: Names the texts and how they are cut.

    Returns:
        The opened texts.

    Raises:
        DataError: If a text is missing, unreadable or too short.
        ConfigError: If the tokenizer has more tokens than the model.
    """
    data: DataConfig = config.data
    tokenizer = load_tokenizer(data.tokenizer)
    if tokenizer.vocab_size > config.model.vocab_size:
        raise ConfigError(
            f"model.vocab_size = {config.model.vocab_size}: the tokenizer "
            f"{data.tokenizer} has {tokenizer.vocab_size} tokens; set "
            f"model.vocab_size to at least that."
        )
    train, held_out = open_corpora(
        data.source, data.path, data.eval_path, data.eval_fraction, tokenizer
    )
    return Texts(
        tokenizer=tokenizer,
        train=train,
        held_out=held_out,
        batches=TrainBatches(
            TokenRows(train, data.seq_len),
            config.train.batch_size,
            data.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ),
        held_out_rows=TokenRows(held_out, data.seq_len),
    )


def prepare(config: RunConfig, *, abstract: bool = False) -> Setup:
    """Build everything a run needs.

    Args:
        config: The run.
        abstract: Compute shapes only and allocate no model.

    Returns:
        The run before its first step, its state replicated over the mesh.

    Raises:
        UserError: If the config asks for texts or devices that are not there.
    """
    texts = open_texts(config)
    mesh = build_mesh(config.mesh.data, config.train.batch_size)
    optimizer = build_optimizer(config.optimizer, config.train.steps)

    def build() -> tuple[TrainState, Statics]:
        model = build_model(config.model, key=jr.key(config.train.seed))
        return init_train_state(model, optimizer)

    # Traced rather than run: drawing the weights op by op would take many small
    # programs.
    state, statics = eqx.filter_eval_shape(build)
    if not abstract:
        draw = jax.jit(lambda: build()[0], out_shardings=replicated(mesh))
        state = draw()
    return Setup(
        config=config,
        texts=texts,
        mesh=mesh,
        optimizer=optimizer,
        statics=statics,
        state=state,
    )


def evaluation_rows(texts: Texts, n_rows: int) -> list[np.ndarray]:
    """Held-out rows, spread evenly over the held-out text.

    Args:
        texts: The opened texts.
        n_rows: How many rows; all if there are fewer.

    Returns:
        The rows, the same ones at every call.
    """
    rows = texts.held_out_rows
    count = min(n_rows, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]
