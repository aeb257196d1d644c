"""The configuration of a synthetic task; which keys count depends on its name."""

from typing import Literal

from pydantic import Field

from titans_eqx.config.section import Section

TaskName = Literal[
    "mqar",
    "in_context_recall",
    "noisy_recall",
    "fuzzy_recall",
    "selective_copying",
    "compression",
    "memorization",
    "needle",
    "who_is_where",
]


class TaskConfig(Section):
    """A task with a known answer; see `titans_eqx.data.synthetic`."""

    name: TaskName = Field(default="mqar", description="which task")
    vocab_size: int = Field(
        default=128, ge=4, description="token ids (tasks in bytes have 256)"
    )
    n_pairs: int = Field(
        default=32, ge=1, description="key-value pairs in a sequence of data.seq_len"
    )
    power: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="where mqar asks: 1 = anywhere, towards 0 = soon after the pairs",
    )
    n_copied: int = Field(
        default=16, ge=1, description="tokens to be copied or compressed"
    )
    noise: float = Field(
        default=0.2, ge=0, lt=1, description="share of noise tokens (noisy_recall)"
    )
    motif_len: int = Field(
        default=3, ge=1, description="longest key or value (fuzzy_recall)"
    )
    needle: Literal["passkey", "number", "word"] = Field(
        default="passkey",
        description="a number in noise, or a number or code in the haystack",
    )
    n_digits: int = Field(default=7, ge=1, le=18, description="digits of a number")
    depth: float = Field(
        default=-1.0,
        ge=-1,
        le=1,
        description="where the needle lies, 0 = first, 1 = last; -1 = anywhere",
    )
    haystack: str = Field(
        default="", description="file of the text to hide in; empty = noise sentences"
    )
    train_rows: int = Field(
        default=1_000_000, ge=1, description="different training sequences"
    )
    held_out_rows: int = Field(
        default=1000, ge=1, description="sequences never trained on"
    )
