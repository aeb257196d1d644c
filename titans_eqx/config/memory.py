"""The configuration of the neural memory."""

import json
from typing import Literal

from pydantic import Field

from titans_eqx.config.section import Section, combination_error


class MemoryConfig(Section):
    """The neural memory: its network, its update rule and what it may learn."""

    rule: Literal["titans", "delta", "omega"] = Field(
        default="titans",
        description="update rule; delta: for linear memories (depth = 1, norm = "
        "false); omega: each token writes the last window pairs again",
    )
    window: int = Field(
        default=4, ge=1, description="pairs that a token writes (rule = omega)"
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
    degree: int = Field(
        default=1,
        ge=1,
        le=3,
        description="a memory's first map takes all monomials up to this degree",
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
    loss: Literal["squared", "huber", "power", "dot"] = Field(
        default="squared",
        description="inner loss; huber: linear beyond a learned norm; power: of the "
        "error, see loss_power; dot: -<M(k), v>",
    )
    loss_power: float = Field(
        default=3.0, gt=1, le=4, description="exponent of loss = power"
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
    error_after_decay: bool = Field(
        default=False,
        description="take errors at the decayed weights (Gated DeltaNet; rule = delta)",
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
    target: Literal["same", "next"] = Field(
        default="same",
        description="whose value a key is stored with: its own token's, or the next's",
    )
    read: Literal["after", "before"] = Field(
        default="after", description="whether a token reads after or before its write"
    )


def check_memory(memory: MemoryConfig) -> None:
    """Refuse keys that do not go together.

    Raises:
        PydanticCustomError: The first wrong combination.
    """
    default = MemoryConfig()
    if memory.decay == "channel":
        gates_fit = memory.gates == "per_layer"
        _require(memory, "decay", ("gates", gates_fit, '"per_layer"'))
    if memory.loss != "power":
        is_default = memory.loss_power == default.loss_power
        _require(memory, "loss", ("loss_power", is_default, "left out"))
    if memory.rule != "omega":
        is_default = memory.window == default.window
        _require(memory, "rule", ("window", is_default, "left out"))
    else:
        _require(
            memory,
            "rule",
            ("decay", memory.decay == "scalar", '"scalar"'),
            ("decay_towards", memory.decay_towards == "zero", '"zero"'),
            ("use_momentum", memory.use_momentum, "true"),
        )
    if memory.rule != "delta":
        is_default = not memory.error_after_decay
        _require(memory, "rule", ("error_after_decay", is_default, "left out"))
    elif memory.error_after_decay:
        _require(
            memory,
            "error_after_decay",
            ("decay", memory.decay == "scalar", '"scalar"'),
        )
    if memory.rule == "delta":
        _require(
            memory,
            "rule",
            ("depth", memory.depth == 1, "1"),
            ("norm", not memory.norm, "false"),
            ("loss", memory.loss == "squared", '"squared"'),
            ("decay", memory.decay != "channel", '"scalar" or "none"'),
            ("decay_towards", memory.decay_towards == "zero", '"zero"'),
            ("max_learning_rate", memory.max_learning_rate <= 1, "<= 1"),
            # It has no clipping and no anchor.
            ("clip", memory.clip == default.clip, "left out"),
            ("surprise", memory.surprise == "first_order", "left out"),
        )


def _require(
    memory: MemoryConfig, because: str, *requirements: tuple[str, bool, str]
) -> None:
    """Refuse the first key that is not what the value of `because` wants."""
    value = json.dumps(getattr(memory, because))
    for key, is_met, wanted in requirements:
        if not is_met:
            raise combination_error(
                f"model.memory.{key} must be {wanted} with model.memory.{because} = "
                f"{value}, got {json.dumps(getattr(memory, key))}",
                f"model.memory.{key}",
                f"model.memory.{because}",
            )
