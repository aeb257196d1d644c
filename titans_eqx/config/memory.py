"""The configuration of the neural memory."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from titans_eqx.config.bounds import KernelSize, Length, NonNegative, Steps, Width
from titans_eqx.config.section import Lengths, Section

LARGEST_BLOCK: Final = 64
PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "titans": {},  # the paper's memory: what the keys have by default
    # What was measured to learn soonest, on text and on recall: a linear memory of
    # pairs of a token and the next one, which passes what it finds on as it is.
    "associative": {
        "rule": "delta",
        "depth": 1,
        "degree": 2,
        "feature_scale": 6.0,
        "residual": False,
        "norm": False,
        "use_momentum": False,
        "target": "next",
        "query_start": "keys",
        "value_activation": "none",
        "value_norm": True,
        "read_norm": False,
        "gate_start": "open",
        "initial_output": "zero",
        "decay_start": 1e-4,
        "max_learning_rate": 1.0,
    },
}
"""Values of `MemoryConfig` by the name that its key `preset` gives them."""


def _as_start(value: object) -> object:
    pair = value if isinstance(value, list | tuple) else [value, value]
    is_share = all(isinstance(n, float) and 0 < n < 1 for n in pair)
    if not is_share or len(pair) != 2:
        raise PydanticCustomError(
            "start", "must be a number between 0 and 1, or a list of two"
        )
    return tuple(pair) if pair is value else value


Start = Annotated[float | tuple[float, float], BeforeValidator(_as_start)]


class HeadsConfig(Section):
    """Memories side by side: their network, their update rule, what they may learn."""

    rule: Literal["titans", "delta", "omega", "memora", "large_chunk"] = Field(
        default="titans",
        description="update rule; delta: for linear memories (depth = 1, norm = "
        "false); omega: each token writes the last window pairs again; memora: weights "
        "are probabilities; large_chunk: reads the weights of the chunk's start, "
        "writes at its end",
    )
    update: Literal["gradient", "muon", "softmax"] = Field(
        default="gradient",
        description="what the end of a chunk does (rule = large_chunk); softmax: "
        "Memora's",
    )
    window: Length = Field(
        default=4, description="pairs that a token writes (rule = omega)"
    )
    depth: int = Field(default=2, ge=1, le=32, description="linear maps in a memory")
    expansion: int = Field(
        default=4,
        ge=1,
        le=1024,
        description="hidden width over head width; unused at depth 1",
    )
    degree: int = Field(
        default=1,
        ge=1,
        le=3,
        description="a memory's first map takes all monomials up to this degree",
    )
    feature_scale: NonNegative = Field(
        default=0.0,
        description="multiplies what the monomials are made of, and brings these to "
        "unit norm: the larger, the less keys that are only similar share; 0 = neither",
    )
    max_learning_rate: float = Field(
        default=0.1,
        gt=0,
        le=1000,
        description="upper bound of the inner learning rate theta",
    )
    clip: NonNegative = Field(
        default=1.0,
        description="largest surprise norm written at the full rate; 0 = no clipping",
    )
    loss: Literal["squared", "huber", "power", "dot"] = Field(
        default="squared",
        description="inner loss; huber: linear beyond a learned norm; power: of the "
        "error, see loss_power; dot: -<M(k), v>",
    )
    loss_power: float = Field(
        default=3.0, gt=1, le=4, description="exponent of loss = power"
    )
    retention: Literal["decay", "elastic_net", "norm"] = Field(
        default="decay",
        description="what the end of a chunk does to the weights: nothing but decay; "
        "shrink them, see retention_threshold; divide them by a power of their norm, "
        "see retention_power",
    )
    retention_threshold: float = Field(
        default=1e-4,
        ge=0,
        le=1,
        description="what a token takes off each weight (retention = elastic_net)",
    )
    retention_power: float = Field(
        default=4.0,
        gt=2,
        le=8,
        description="q of the norm; its power is q - 2 (retention = norm)",
    )
    decay_towards: Literal["zero", "initial"] = Field(
        default="zero", description="weights that forgetting leads to"
    )
    initial_memory: Literal["frozen", "learned"] = Field(
        default="frozen", description="whether the initial weights are trained"
    )
    initial_output: Literal["random", "zero"] = Field(
        default="random",
        description="initial weights of the last map; zero: a fresh memory knows "
        "nothing",
    )
    surprise: Literal["first_order", "full"] = Field(
        default="first_order",
        description="whether training differentiates the surprise by the anchor (full)",
    )
    truncate_every: Steps = Field(
        default=0, description="chunks after which gradients stop; 0 = never"
    )
    residual: bool = Field(default=True, description="M(x) = x + f(x), not f(x)")
    norm: bool = Field(default=True, description="layer norm on f, without parameters")
    kernel_size: KernelSize = Field(
        default=4, description="tokens seen by the convolution; 1 = none"
    )
    use_momentum: bool = Field(
        default=True, description="whether past surprise is carried on (eta)"
    )
    decay: Literal["scalar", "channel", "none"] = Field(
        default="scalar",
        description="one alpha per gate, one per row of the weights (slow), or none",
    )
    error_after_decay: bool = Field(
        default=False,
        description="take errors at the decayed weights (Gated DeltaNet; rule = delta)",
    )
    decay_start: Start = Field(
        default=0.01,
        description="alpha before training, or those of the first and the last head; a "
        "memory lasts about 1 / alpha tokens",
    )
    gates: Literal["per_layer", "per_head"] = Field(
        default="per_layer",
        description="whether each memory layer has its own gates, or shares its head's",
    )
    target: Literal["same", "next"] = Field(
        default="same",
        description="whose value a key is stored with: its own token's, or the next's",
    )
    key_start: Literal["token", "context"] = Field(
        default="token",
        description="the convolutions of keys and queries before training: near the "
        "token itself, or a random mix of the last kernel_size tokens, so that a pair "
        "is found by its context from the first step on",
    )
    query_start: Literal["random", "keys"] = Field(
        default="random",
        description="the queries' projection before training; keys: that of the keys, "
        "so what is like a token is found from the first step on",
    )
    value_activation: Literal["silu", "none"] = Field(
        default="silu",
        description="what follows the convolution of the values; none: a value is a "
        "linear map of a few tokens, and so is what is read",
    )
    value_norm: bool = Field(
        default=False, description="bring a head's values to unit mean square"
    )
    read: Literal["after", "before"] = Field(
        default="after", description="whether a token reads after or before its write"
    )


class LocalConfig(HeadsConfig):
    """TNT's local memories, which start anew with every shard; beside a global one."""

    chunk_lens: Lengths = Field(
        default=(),
        description="one local memory for each, of that chunk length; [] = none",
    )
    shard_len: Length = Field(
        default=2048, description="tokens of a shard; a multiple of every local chunk"
    )
    qk_projection: bool = Field(
        default=True, description="whether queries are led through the shard's keys"
    )
    initial_memory: Literal["frozen", "learned"] = Field(
        default="learned", description="whether the initial weights are trained"
    )


class MemoryConfig(HeadsConfig):
    """The neural memory."""

    preset: Literal["titans", "associative"] | None = Field(
        default=None,
        description="name of values for the keys that are left out, filled in when the "
        "section is read; titans: the paper's, as without one; associative: delta rule "
        "with keys of degree 2, which learns recall and text soonest",
    )
    n_heads: Width = Field(
        default=4, description="memories side by side; divides model.d_model"
    )
    chunk_len: Length = Field(
        default=32, description="tokens whose surprise is taken at one anchor"
    )
    read_norm: bool = Field(
        default=True,
        description="bring what a head reads to unit mean square; false: its size says "
        "how much the memory knows, see value_norm",
    )
    gate_start: Literal["random", "open"] = Field(
        default="random",
        description="the gate on what is read, before training; open: 1, so all of it "
        "passes from the first step on",
    )
    off: bool = Field(
        default=False,
        description="switch the memory off: no write, no decay, same parameters",
    )
    local: LocalConfig = Field(
        default=LocalConfig(), description="local memories beside this one (TNT)"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Values in place of a preset's name, so that what is saved has them all."""
        name = values.get("preset") if isinstance(values, Mapping) else None
        if not isinstance(name, str) or name not in PRESETS:
            return values
        given = {key: value for key, value in values.items() if key != "preset"}
        return {**PRESETS[name], **given}

    @property
    def unit(self) -> int:
        """Tokens that the memory takes in at once; a MAC segment is a number of them.

        Whole chunks, or blocks of them where chunks are large.
        """
        if self.local.chunk_lens:
            lengths = (self.chunk_len, *self.local.chunk_lens)
            return math.lcm(*map(block_len, lengths))
        is_large = self.rule == "large_chunk"
        return block_len(self.chunk_len) if is_large else self.chunk_len


def block_len(chunk_len: int) -> int:
    """Tokens of a large chunk to be taken in at once where a stream has parts."""
    return math.gcd(chunk_len, LARGEST_BLOCK)
