"""The configuration of a model: sizes and options, no files and no training.

Widths are numbers of features, lengths are numbers of tokens.
"""

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from titans_eqx.config.bounds import (
    MAX_LEN,
    KernelSize,
    Length,
    Positive,
    VocabularySize,
    Width,
)
from titans_eqx.config.memory import MemoryConfig
from titans_eqx.config.memory_check import check_memory
from titans_eqx.config.section import Section, combination_error

Block = Literal["mac", "mag", "mal", "lmm", "transformer"]


def _as_pattern(value: object) -> object:
    names = value if isinstance(value, list | tuple) else [value]
    if not names or not all(name in get_args(Block) for name in names):
        listed = ", ".join(f'"{name}"' for name in get_args(Block))
        raise PydanticCustomError(
            "pattern", "must be one of {blocks}, or a list of these", {"blocks": listed}
        )
    return tuple(value) if isinstance(value, list) else value


Pattern = Annotated[Block | tuple[Block, ...], BeforeValidator(_as_pattern)]


class AttentionConfig(Section):
    """Attention over the recent past."""

    n_heads: Width = Field(
        default=4, description="heads; model.d_model over it must be even"
    )
    segment_len: Length = Field(
        default=64, description="tokens in a segment (mac); a multiple of a chunk"
    )
    window: Length = Field(
        default=64, description="tokens that a token sees, itself included (not mac)"
    )
    kernel_size: KernelSize = Field(
        default=1,
        description="tokens seen by a convolution of q, k and v; 1 = none",
    )
    key_delay: int = Field(
        default=0,
        ge=0,
        lt=64,
        description="tokens back at which the keys' convolution starts; 1: a value is "
        "found by the token before it; less than kernel_size",
    )
    n_persistent: int = Field(
        ge=0, le=MAX_LEN, default=4, description="learned tokens that every token sees"
    )
    persistent_in_memory: bool = Field(
        default=False,
        description="whether the memory reads the persistent tokens first (mag, mal)",
    )
    rope_base: Positive = Field(
        default=10000.0, description="base of the rotary position frequencies"
    )


class ModelConfig(Section):
    """A language model."""

    pattern: Pattern = Field(
        default="mac",
        description='block ("mac", "mag", "mal", "lmm", "transformer" = no memory), or '
        "a list of blocks that repeats over n_layers",
    )
    d_model: Width = Field(default=128, description="width of the residual stream")
    n_layers: int = Field(default=4, ge=1, le=1024, description="blocks")
    vocab_size: VocabularySize = Field(default=256, description="token ids")
    tied_embeddings: bool = Field(
        default=True, description="whether output and input embeddings are one matrix"
    )
    feedforward_multiple: float = Field(
        default=2.667, gt=0, le=1024, description="hidden width of SwiGLU over d_model"
    )
    gate: Literal["add", "mix", "multiply"] = Field(
        default="add",
        description="how a memory read joins the attention stream (mac, mag)",
    )
    memory: MemoryConfig = Field(
        default=MemoryConfig(), description="the neural memory"
    )
    attention: AttentionConfig = Field(
        default=AttentionConfig(), description="attention over the recent past"
    )

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of the pattern, in order."""
        return (self.pattern,) if isinstance(self.pattern, str) else self.pattern

    @property
    def has_memory(self) -> bool:
        """Whether any block has a neural memory."""
        return any(block != "transformer" for block in self.blocks)

    @model_validator(mode="after")
    def _check_combinations(self) -> "ModelConfig":
        self._check_pattern()
        if self.has_memory:
            self._check_memory()
        if any(block != "lmm" for block in self.blocks):
            self._check_attention()
            self._check_convolution()
        if {"mag", "mal"} & set(self.blocks):
            self._check_prefix()
        if "mac" in self.blocks:
            self._check_segment()
        return self

    def _check_pattern(self) -> None:
        length = len(self.blocks)
        if self.n_layers % length != 0:
            raise combination_error(
                "model.n_layers must be a multiple of the length of model.pattern, got "
                f"{self.n_layers} and {length}; "
                f"n_layers = {_next_multiple(self.n_layers, length)} would do",
                "model.n_layers",
                "model.pattern",
            )

    def _check_memory(self) -> None:
        memory = self.memory
        heads = memory.n_heads
        if self.d_model % heads != 0:
            raise combination_error(
                "model.d_model must be a multiple of model.memory.n_heads, got "
                f"{self.d_model} and {heads}; "
                f"d_model = {_next_multiple(self.d_model, heads)} would do",
                "model.d_model",
                "model.memory.n_heads",
            )
        check_memory(memory)

    def _check_prefix(self) -> None:
        local, n_persistent = self.memory.local, self.attention.n_persistent
        is_read = self.attention.persistent_in_memory and local.chunk_lens
        if is_read and n_persistent >= local.shard_len:
            raise combination_error(
                "model.attention.n_persistent must be less than "
                "model.memory.local.shard_len with persistent_in_memory, or local "
                f"memories forget them, got {n_persistent} and {local.shard_len}",
                "model.attention.n_persistent",
                "model.memory.local.shard_len",
            )

    def _check_attention(self) -> None:
        heads = self.attention.n_heads
        if self.d_model % (2 * heads) != 0:
            raise combination_error(
                "model.d_model must be a multiple of twice model.attention.n_heads "
                "(rotary positions turn pairs of features), got "
                f"{self.d_model} and {heads}; "
                f"d_model = {_next_multiple(self.d_model, 2 * heads)} would do",
                "model.d_model",
                "model.attention.n_heads",
            )

    def _check_convolution(self) -> None:
        size, delay = self.attention.kernel_size, self.attention.key_delay
        if delay >= size:
            raise combination_error(
                "model.attention.key_delay must be < model.attention.kernel_size, got "
                f"{delay} and {size}; kernel_size = 4 would do",
                "model.attention.key_delay",
                "model.attention.kernel_size",
            )

    def _check_segment(self) -> None:
        segment, unit = self.attention.segment_len, self.memory.unit
        if segment % unit != 0:
            is_chunk = unit == self.memory.chunk_len
            name = "model.memory.chunk_len" if is_chunk else "what the memories take in"
            raise combination_error(
                f"model.attention.segment_len must be a multiple of {name}, got "
                f"{segment} and {unit}; "
                f"segment_len = {_next_multiple(segment, unit)} would do",
                "model.attention.segment_len",
                "model.memory.chunk_len",
                "model.memory.local.chunk_lens",
            )


def _next_multiple(value: int, unit: int) -> int:
    return -(-value // unit) * unit
