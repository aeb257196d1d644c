"""The configuration of a model: sizes and options, no files and no training.

Widths are numbers of features, lengths are numbers of tokens.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from titans_eqx.config.section import Section, combination_error


def _as_layers(value: object) -> object:
    if value == "all":
        return value
    layers = value if isinstance(value, list | tuple) else ()
    if not layers or not all(type(i) is int and i >= 0 for i in layers):
        raise PydanticCustomError(
            "layers", 'must be "all" or a list of layer numbers, counted from 0'
        )
    if len(set(layers)) < len(layers):
        raise PydanticCustomError("layers", "must name a layer only once")
    return tuple(layers)


Layers = Annotated[Literal["all"] | tuple[int, ...], BeforeValidator(_as_layers)]


class MemoryConfig(Section):
    """The neural memory: its network, its update rule and what it may learn."""

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
    max_step: float = Field(
        default=0.1, ge=0, description="upper bound of the step theta; 0 = no memory"
    )
    clip: float = Field(
        default=1.0,
        ge=0,
        description="surprise norm that is written at full step; 0 = no clipping",
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
    conv_taps: int = Field(
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
    layers: Layers = Field(
        default="all", description='layers with a memory: "all" or a list, from 0'
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

    variant: Literal["mac", "mag", "mal", "lmm", "transformer"] = Field(
        default="mac",
        description="memory as context, as gate, as layer, alone, or no memory",
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

    @model_validator(mode="after")
    def _check_combinations(self) -> "ModelConfig":
        has_memory = self.variant != "transformer"
        # Layers without a memory are attention layers, also in a model of memories.
        has_attention = self.variant != "lmm" or self.memory.layers != "all"
        if has_memory:
            self._check_memory()
        if has_attention:
            self._check_attention()
        if self.variant == "mac":
            self._check_segment()
        return self

    def _check_memory(self) -> None:
        heads, layers = self.memory.n_heads, self.memory.layers
        if self.d_model % heads != 0:
            raise combination_error(
                "model.d_model must be a multiple of model.memory.n_heads, got "
                f"{self.d_model} and {heads}; "
                f"d_model = {_next_multiple(self.d_model, heads)} would do",
                "model.d_model",
                "model.memory.n_heads",
            )
        if self.memory.decay == "channel" and self.memory.gates != "per_layer":
            raise combination_error(
                'model.memory.gates must be "per_layer" with model.memory.decay = '
                f'"channel", got "{self.memory.gates}"',
                "model.memory.gates",
                "model.memory.decay",
            )
        if layers != "all" and max(layers) >= self.n_layers:
            raise combination_error(
                f"model.memory.layers must name layers from 0 to {self.n_layers - 1} "
                f"(model.n_layers = {self.n_layers}), got {max(layers)}",
                "model.memory.layers",
                "model.n_layers",
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


def _next_multiple(value: int, unit: int) -> int:
    return -(-value // unit) * unit
