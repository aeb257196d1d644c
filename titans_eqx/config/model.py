"""The configuration of a model: sizes and options, no files and no training.

Widths are numbers of features, lengths are numbers of tokens.
"""

import json
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

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


class MemoryConfig(Section):
    """The neural memory: its network, its update rule and what it may learn."""

    rule: Literal["titans", "delta"] = Field(
        default="titans",
        description="update rule; delta: for linear memories (depth = 1, norm = false)",
    )
    off: bool = Field(
        default=False,
        description="switch the memory off: no write, no decay, same parameters",
    )
    n_heads: int = Field(
        default=4, ge=1, description="memories side by side; divides model.d_model"
    )
    depth: int = Field(default=2, ge=1, description="linear maps in a memory")
    expansion: int = Field(
        default=4, ge=1, description="hidden width over head width; unused at depth 1"
    )
    chunk_len: int = Field(
        default=32, ge=1, description="tokens whose surprise is taken at one anchor"
    )
    max_learning_rate: float = Field(
        default=0.1, gt=0, description="upper bound of the inner learning rate theta"
    )
    clip: float = Field(
        default=1.0,
        ge=0,
        description="largest surprise norm written at the full rate; 0 = no clipping",
    )
    decay_towards: Literal["zero", "initial"] = Field(
        default="zero", description="weights that forgetting leads to"
    )
    initial_memory: Literal["frozen", "learned"] = Field(
        default="frozen", description="whether the initial weights are trained"
    )
    surprise: Literal["first_order", "full"] = Field(
        default="first_order",
        description="whether training differentiates the surprise by the anchor (full)",
    )
    truncate_every: int = Field(
        default=0, ge=0, description="chunks after which gradients stop; 0 = never"
    )
    residual: bool = Field(default=True, description="M(x) = x + f(x), not f(x)")
    norm: bool = Field(default=True, description="layer norm on f, without parameters")
    kernel_size: int = Field(
        default=4, ge=1, description="tokens seen by the convolution; 1 = none"
    )
    use_momentum: bool = Field(
        default=True, description="whether past surprise is carried on (eta)"
    )
    decay: Literal["scalar", "channel", "none"] = Field(
        default="scalar",
        description="one alpha per gate, one per row of the weights (slow), or none",
    )
    decay_start: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="alpha before training; a memory lasts about 1 / alpha tokens",
    )
    gates: Literal["per_layer", "per_head"] = Field(
        default="per_layer",
        description="whether each memory layer has its own gates, or shares its head's",
    )
    read: Literal["after", "before"] = Field(
        default="after", description="whether a token reads after or before its write"
    )


class AttentionConfig(Section):
    """Attention over the recent past."""

    n_heads: int = Field(
        default=4, ge=1, description="heads; model.d_model over it must be even"
    )
    segment_len: int = Field(
        default=64, ge=1, description="tokens in a segment (mac); a multiple of a chunk"
    )
    window: int = Field(
        default=64,
        ge=1,
        description="tokens that a token sees, itself included (not mac)",
    )
    kernel_size: int = Field(
        default=1,
        ge=1,
        description="tokens seen by a convolution of q, k and v (not mac); 1 = none",
    )
    n_persistent: int = Field(
        default=4, ge=0, description="learned tokens that every token sees"
    )
    persistent_in_memory: bool = Field(
        default=False,
        description="whether the memory reads the persistent tokens first (mag, mal)",
    )
    rope_base: float = Field(
        default=10000.0, gt=0, description="base of the rotary position frequencies"
    )


class ModelConfig(Section):
    """A language model."""

    pattern: Pattern = Field(
        default="mac",
        description='block ("mac", "mag", "mal", "lmm", "transformer" = no memory), or '
        "a list of blocks that repeats over n_layers",
    )
    d_model: int = Field(default=128, ge=1, description="width of the residual stream")
    n_layers: int = Field(default=4, ge=1, description="blocks")
    vocab_size: int = Field(default=256, ge=1, description="token ids")
    tied_embeddings: bool = Field(
        default=True, description="whether output and input embeddings are one matrix"
    )
    feedforward_multiple: float = Field(
        default=2.667, gt=0, description="hidden width of SwiGLU over d_model"
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
        if memory.decay == "channel" and memory.gates != "per_layer":
            raise combination_error(
                'model.memory.gates must be "per_layer" with model.memory.decay = '
                f'"channel", got "{memory.gates}"',
                "model.memory.gates",
                "model.memory.decay",
            )
        if memory.rule == "delta":
            self._check_delta()

    def _check_delta(self) -> None:
        memory = self.memory
        for key, is_right, wanted in (
            ("depth", memory.depth == 1, "1"),
            ("norm", not memory.norm, "false"),
            ("decay", memory.decay != "channel", '"scalar" or "none"'),
            ("decay_towards", memory.decay_towards == "zero", '"zero"'),
            ("max_learning_rate", memory.max_learning_rate <= 1, "<= 1"),
            # It has no clipping and no anchor.
            ("clip", memory.clip == MemoryConfig().clip, "left out"),
            ("surprise", memory.surprise == "first_order", "left out"),
        ):
            if not is_right:
                raise combination_error(
                    f"model.memory.{key} must be {wanted} with model.memory.rule = "
                    f'"delta", got {json.dumps(getattr(memory, key))}',
                    f"model.memory.{key}",
                    "model.memory.rule",
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

    def _check_segment(self) -> None:
        segment, chunk = self.attention.segment_len, self.memory.chunk_len
        if segment % chunk != 0:
            raise combination_error(
                "model.attention.segment_len must be a multiple of "
                f"model.memory.chunk_len, got {segment} and {chunk}; "
                f"segment_len = {_next_multiple(segment, chunk)} would do",
                "model.attention.segment_len",
                "model.memory.chunk_len",
            )
        if self.attention.kernel_size != 1:
            raise combination_error(
                'model.attention.kernel_size must be 1 with a "mac" block, got '
                f"{self.attention.kernel_size}",
                "model.attention.kernel_size",
                "model.pattern",
            )


def _next_multiple(value: int, unit: int) -> int:
    return -(-value // unit) * unit
