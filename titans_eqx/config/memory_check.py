"""Which keys of the neural memory do not go together."""

import json
from collections.abc import Iterator

from titans_eqx.config.memory import HeadsConfig, LocalConfig, MemoryConfig
from titans_eqx.config.section import combination_error


def largest_delta_rate(
    use_momentum: bool, use_decay: bool, error_after_decay: bool
) -> int:
    """The largest `max_learning_rate` of the delta rule.

    A step above 1 mirrors what is stored; it must not meet a velocity, nor an error
    that the decay has not made smaller.
    """
    may_mirror = not use_momentum and (error_after_decay or not use_decay)
    return 2 if may_mirror else 1


def check_memory(memory: MemoryConfig) -> None:
    """Refuse keys that do not go together.

    Raises:
        PydanticCustomError: The first wrong combination.
    """
    _check_heads(memory, "model.memory")
    local, name = memory.local, "model.memory.local"
    if not local.chunk_lens:
        # Not which keys were set: a resolved configuration sets every key.
        if local != LocalConfig():
            raise combination_error(
                f"{name} has no effect without {name}.chunk_lens; leave it out, or "
                "give each local memory its chunk length",
                *(f"{name}.{key}" for key in LocalConfig.model_fields),
            )
        return
    _check_heads(local, name)
    for chunk_len in local.chunk_lens:
        if local.shard_len % chunk_len != 0:
            raise combination_error(
                f"{name}.shard_len must be a multiple of all {name}.chunk_lens, got "
                f"{local.shard_len} and {chunk_len}",
                f"{name}.shard_len",
                f"{name}.chunk_lens",
            )


def _check_heads(heads: HeadsConfig, name: str) -> None:
    """Refuse keys of a section that do not go together."""

    def require(because: str, *requirements: tuple[str, bool, str]) -> None:
        """Refuse the first key that is not what the value of `because` wants."""
        value = json.dumps(getattr(heads, because))
        for key, is_met, wanted in requirements:
            if not is_met:
                raise combination_error(
                    f"{name}.{key} must be {wanted} with {name}.{because} = {value}, "
                    f"got {json.dumps(getattr(heads, key))}",
                    f"{name}.{key}",
                    f"{name}.{because}",
                )

    def left_out(*keys: str) -> Iterator[tuple[str, bool, str]]:
        fields = type(heads).model_fields
        for key in keys:
            yield key, getattr(heads, key) == fields[key].default, "left out"

    if heads.decay == "channel":
        require("decay", ("gates", heads.gates == "per_layer", '"per_layer"'))
    if heads.loss != "power":
        require("loss", *left_out("loss_power"))
    scalar = ("decay", heads.decay == "scalar", '"scalar"')
    if heads.error_after_decay:
        require("error_after_decay", scalar)
    # What only one of the rules looks at.
    for rule, key in (
        ("omega", "window"),
        ("delta", "error_after_decay"),
        ("large_chunk", "update"),
    ):
        if heads.rule != rule:
            require("rule", *left_out(key))
    for retention, key in (
        ("elastic_net", "retention_threshold"),
        ("norm", "retention_power"),
    ):
        if heads.retention != retention:
            require("retention", *left_out(key))
    if heads.retention != "decay":
        has_velocity = heads.rule in ("titans", "omega")
        require("retention", ("rule", has_velocity, '"titans" or "omega"'))
    to_zero = ("decay_towards", heads.decay_towards == "zero", '"zero"')
    if heads.decay == "none":
        require("decay", to_zero)
    no_channels = ("decay", heads.decay != "channel", '"scalar" or "none"')
    match heads.rule:
        case "delta":
            largest = largest_delta_rate(
                heads.use_momentum, heads.decay != "none", heads.error_after_decay
            )
            require(
                "rule",
                ("depth", heads.depth == 1, "1"),
                ("norm", not heads.norm, "false"),
                ("loss", heads.loss == "squared", '"squared"'),
                no_channels,
                to_zero,
                (
                    "max_learning_rate",
                    heads.max_learning_rate <= largest,
                    f"<= {largest} (2 needs use_momentum = false, and "
                    'error_after_decay = true or decay = "none")',
                ),
                # It has no clipping and no anchor.
                *left_out("clip", "surprise"),
            )
        case "omega":
            has_momentum = ("use_momentum", heads.use_momentum, "true")
            require("rule", scalar, to_zero, has_momentum)
        case "memora":
            no_momentum = ("use_momentum", not heads.use_momentum, "false")
            require("rule", scalar, to_zero, no_momentum)
        case "large_chunk":
            # Momentum belongs to the update.
            require("rule", no_channels, to_zero, *left_out("read", "use_momentum"))
