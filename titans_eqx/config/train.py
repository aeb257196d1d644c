"""The configuration of the training itself."""

from typing import Literal

from pydantic import Field

from titans_eqx.config.bounds import (
    MAX_LEN,
    MAX_STEPS,
    BatchSize,
    Length,
    NExamples,
    NonNegative,
    Seed,
    Steps,
)
from titans_eqx.config.section import Section


class TrainConfig(Section):
    """How long to train, and what to do on the way; 0 in an `*_every` means never."""

    init_from: str = Field(
        default="",
        description="folder of a run or an exported model to start from; empty: none",
    )
    steps: int = Field(
        default=1000, ge=1, le=MAX_STEPS, description="optimizer steps in all"
    )
    batch_size: BatchSize = Field(
        default=16, description="sequences in a step, over all devices"
    )
    accumulate: BatchSize = Field(
        default=1, description="parts of a batch, one after the other to save memory"
    )
    loss_block: int = Field(
        default=0,
        ge=0,
        le=MAX_LEN,
        description="tokens of a device whose logits exist at a time, none for those "
        "of a task that are not asked for; 0 = all",
    )
    remat: Literal["none", "block", "everything"] = Field(
        default="none",
        description="run again in the backward pass, to save memory: a few operations, "
        "each block, or each block and in it each chunk and segment",
    )
    precision: Literal["float32", "mixed"] = Field(
        default="float32",
        description="mixed: products in bfloat16; weights, memories, loss in float32",
    )
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="of the average of the weights that is evaluated; 0 = no average",
    )
    carry_state: bool = Field(
        default=False,
        description="whether each row reads on in a text of its own, with its memory",
    )
    peak_flops: NonNegative = Field(
        default=0.0,
        description="FLOP/s of a device at best, for the utilisation in the metrics; "
        "0 = that of a known kind",
    )
    eval_every: Steps = Field(
        default=200, description="steps between evaluations; 0 = never"
    )
    eval_examples: NExamples = Field(
        default=64, description="held-out sequences in an evaluation"
    )
    checkpoint_every: Steps = Field(
        default=200, description="steps between checkpoints; 0 = never"
    )
    log_every: Steps = Field(
        default=10,
        description="steps between lines of metrics, beside the first and the last; "
        "0 = none between",
    )
    sample_every: Steps = Field(
        default=200, description="steps between text samples; 0 = never"
    )
    sample_len: Length = Field(default=200, description="tokens in a text sample")
    seed: Seed = Field(default=0, description="initial weights and samples")

    @property
    def part_size(self) -> int:
        """Sequences that are read at a time, over all devices."""
        return self.batch_size // self.accumulate
