"""The configuration of a training run: a model and everything around it."""

import os
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from titans_eqx.config.bounds import MAX_LEN, Length, Seed
from titans_eqx.config.distributed import DistributedConfig
from titans_eqx.config.mesh import MeshConfig
from titans_eqx.config.model import ModelConfig
from titans_eqx.config.optimizer import OptimizerConfig
from titans_eqx.config.section import Lengths, Section, combination_error
from titans_eqx.config.task import MqarConfig, TaskConfig
from titans_eqx.config.train import TrainConfig

BYTES_VOCAB_SIZE: Final = 256


def _as_paths(value: object) -> object:
    names = value if isinstance(value, list | tuple) else [value]
    if value is not None and (
        not names or not all(isinstance(name, str) and name for name in names)
    ):
        raise PydanticCustomError(
            "paths", "must be a file, a folder or a glob, or a list of these"
        )
    return tuple(value) if isinstance(value, list) else value


Paths = Annotated[str | tuple[str, ...] | None, BeforeValidator(_as_paths)]


class DataConfig(Section):
    """Which text is read, and how it is cut."""

    source: Literal["stdlib", "task", "shards"] = Field(
        default="stdlib",
        description="Python's standard library's source (without path), data.task, or "
        "shards: what titans-prepare wrote to path",
    )
    path: Paths = Field(
        default=None, description="training text: file, folder, glob or list of these"
    )
    eval_path: Paths = Field(
        default=None, description="held-out text, same forms; absent = split off path"
    )
    eval_fraction: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="share of documents held out without eval_path",
    )
    seq_len: Length = Field(default=256, description="tokens in a training sequence")
    lengths: Lengths = Field(
        default=(),
        description="training lengths in turns, repeats count; [] = seq_len only",
    )
    packing: Literal["stream", "documents"] = Field(
        default="stream",
        description="rows are windows of all documents joined; documents: each of a "
        "row starts with a fresh memory, and predicts nothing of the next",
    )
    max_documents: int = Field(
        default=8,
        ge=2,
        le=MAX_LEN,
        description='documents in a row (packing = "documents"); more cost time',
    )
    tokenizer: str = Field(
        default="bytes",
        min_length=1,
        description='"bytes", or a tokenizer.json; "bytes" with shards: their own',
    )
    seed: Seed = Field(default=0, description="order of the training sequences")
    task: TaskConfig = Field(
        default=MqarConfig(), description='the task of data.source = "task"'
    )

    @property
    def training_lengths(self) -> tuple[int, ...]:
        """Tokens in a sequence of step 0, 1, ...; then the first has its turn again."""
        return self.lengths or (self.seq_len,)

    @property
    def shard_folder(self) -> Path:
        """The folder of `source = "shards"`."""
        assert isinstance(self.path, str)
        return Path(os.path.expanduser(self.path))

    @model_validator(mode="after")
    def _check_shards(self) -> "DataConfig":
        if self.source == "shards":
            if not isinstance(self.path, str):
                raise combination_error(
                    'data.source = "shards" needs data.path = the one folder that '
                    f"titans-prepare wrote, got {self.path!r}",
                    "data.source",
                    "data.path",
                )
            if self.eval_path is not None:
                raise combination_error(
                    'data.eval_path has no effect with data.source = "shards", which '
                    "hold their own; leave it out",
                    "data.source",
                    "data.eval_path",
                )
        return self

    @model_validator(mode="after")
    def _check_packing(self) -> "DataConfig":
        if self.packing == "documents":
            if self.source == "task":
                raise combination_error(
                    'data.packing must be "stream" with data.source = "task", got '
                    '"documents"; its examples are sequences of their own',
                    "data.packing",
                    "data.source",
                )
        elif self.max_documents != type(self).model_fields["max_documents"].default:
            raise combination_error(
                'data.max_documents has no effect with data.packing = "stream"; leave '
                'it out, or set data.packing = "documents"',
                "data.max_documents",
                "data.packing",
            )
        return self

    @model_validator(mode="after")
    def _check_task(self) -> "DataConfig":
        # Not whether it was set: a resolved configuration sets every key.
        if self.source != "task" and self.task != MqarConfig():
            raise combination_error(
                f'data.task has no effect with data.source = "{self.source}"; leave it '
                'out, or set data.source = "task"',
                "data.source",
                *(f"data.task.{key}" for key in type(self.task).model_fields),
            )
        in_turn = getattr(self.task, "pairs_in_turn", ())
        if in_turn and len(in_turn) != len(self.lengths):
            raise combination_error(
                "data.task.pairs_in_turn must have a number for each of data.lengths, "
                f"got {len(in_turn)} for {len(self.lengths)}",
                "data.task.pairs_in_turn",
                "data.lengths",
            )
        return self


class RunConfig(Section):
    """Everything a training run depends on."""

    model: ModelConfig = Field(default=ModelConfig(), description="the model")
    data: DataConfig = Field(default=DataConfig(), description="the text")
    optimizer: OptimizerConfig = Field(
        default=OptimizerConfig(), description="the optimizer"
    )
    train: TrainConfig = Field(default=TrainConfig(), description="the run")
    mesh: MeshConfig = Field(default=MeshConfig(), description="the devices")
    distributed: DistributedConfig = Field(
        default=DistributedConfig(), description="the processes"
    )

    def n_tokens(self, steps: int) -> int:
        """Tokens read in the first so many steps of training."""
        lengths = self.data.training_lengths
        cycles, rest = divmod(steps, len(lengths))
        return self.train.batch_size * (cycles * sum(lengths) + sum(lengths[:rest]))

    @model_validator(mode="after")
    def _check_combinations(self) -> "RunConfig":
        vocab_size = self.model.vocab_size
        is_text = self.data.source == "stdlib"
        if is_text and self.data.tokenizer == "bytes" and vocab_size < BYTES_VOCAB_SIZE:
            raise combination_error(
                f"model.vocab_size must be >= {BYTES_VOCAB_SIZE} with "
                f'data.tokenizer = "bytes", got {vocab_size}',
                "model.vocab_size",
                "data.tokenizer",
            )
        warmup, steps = self.optimizer.warmup_steps, self.train.steps
        if warmup > steps:
            raise combination_error(
                f"optimizer.warmup_steps must be <= train.steps, got {warmup} and "
                f"{steps}; shorten the warm-up or train longer",
                "optimizer.warmup_steps",
                "train.steps",
            )
        self._check_mesh()
        self._check_streams()
        return self

    def _check_streams(self) -> None:
        if not self.train.carry_state:
            return
        if self.data.source == "task":
            raise combination_error(
                "train.carry_state reads on in a text, and the examples of data.source "
                '= "task" do not go on; train on a text, or set it to false',
                "train.carry_state",
                "data.source",
            )
        if len(self.data.training_lengths) > 1:
            raise combination_error(
                "train.carry_state needs windows of one length, got data.lengths = "
                f"{list(self.data.lengths)}; leave it out and set data.seq_len",
                "train.carry_state",
                "data.lengths",
            )

    def _check_mesh(self) -> None:
        data, fsdp = self.mesh.data, self.mesh.fsdp
        if data == fsdp == -1:
            raise combination_error(
                "mesh.data and mesh.fsdp cannot both be -1, the rest of the devices",
                "mesh.data",
                "mesh.fsdp",
            )
        # Only those that are known; of the rest it is checked when devices are.
        devices, parts = max(data, 1) * max(fsdp, 1), self.train.accumulate
        if (batch_size := self.train.batch_size) % (devices * parts) != 0:
            would_do = -(-batch_size // (devices * parts)) * devices * parts
            raise combination_error(
                "train.batch_size must be a multiple of mesh.data x mesh.fsdp x "
                f"train.accumulate, got {batch_size} and {devices * parts}; "
                f"batch_size = {would_do} would do",
                "train.batch_size",
                "train.accumulate",
                "mesh.data",
                "mesh.fsdp",
            )
        if (width := self.model.d_model) % max(fsdp, 1) != 0:
            raise combination_error(
                f"model.d_model must be a multiple of mesh.fsdp, got {width} and "
                f"{fsdp}; d_model = {-(-width // fsdp) * fsdp} would do",
                "model.d_model",
                "mesh.fsdp",
            )
