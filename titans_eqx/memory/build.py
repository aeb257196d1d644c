"""From a config to a memory network and a rule: where a name becomes a leaf."""

from typing import Any

from titans_eqx.config.memory import HeadsConfig
from titans_eqx.memory.delta import DeltaRule
from titans_eqx.memory.large_chunk import (
    AbstractChunkUpdate,
    GradientUpdate,
    LargeChunkRule,
)
from titans_eqx.memory.loss import AbstractInnerLoss, SquaredError
from titans_eqx.memory.losses import DotProductLoss, HuberLoss, PowerLoss
from titans_eqx.memory.memora import MemoraRule, SoftmaxUpdate
from titans_eqx.memory.muon import MuonUpdate
from titans_eqx.memory.net import AbstractMemoryNet, MemoryNet
from titans_eqx.memory.omega import OmegaRule
from titans_eqx.memory.outer_gradient import OuterGradient
from titans_eqx.memory.read_only import ReadOnlyRule
from titans_eqx.memory.retention import ElasticNet, NormRetention
from titans_eqx.memory.retention_rule import RetentionRule
from titans_eqx.memory.rule import AbstractRule
from titans_eqx.memory.titans import TitansRule


def build_net(d: int, config: HeadsConfig) -> AbstractMemoryNet:
    """The network of one head of width `d`."""
    return MemoryNet(
        d,
        config.depth,
        config.expansion,
        residual=config.residual,
        norm=config.norm,
        degree=config.degree,
        feature_scale=config.feature_scale,
    )


def heads_options(config: HeadsConfig) -> dict[str, Any]:
    """Those arguments of `MemoryHeads` that follow from a config alone."""
    return {
        "kernel_size": config.kernel_size,
        "share_gates": config.gates == "per_head",
        "target": config.target,
        "initial_output": config.initial_output,
        "key_start": config.key_start,
        "query_start": config.query_start,
        "value_activation": config.value_activation,
        "value_norm": config.value_norm,
    }


def build_loss(config: HeadsConfig) -> AbstractInnerLoss:
    """The inner loss."""
    match config.loss:
        case "squared":
            return SquaredError()
        case "huber":
            return HuberLoss()
        case "power":
            return PowerLoss(config.loss_power)
        case "dot":
            return DotProductLoss()


def build_rule(
    d: int, config: HeadsConfig, *, chunk_len: int, off: bool
) -> AbstractRule:
    """The update rule of heads of width `d`, or what is left of it switched off."""
    outer_gradient = OuterGradient(
        initial_memory=config.initial_memory,
        surprise=config.surprise,
        truncate_every=config.truncate_every,
    )
    rule: AbstractRule
    match config.rule:
        case "titans":
            titans = TitansRule(
                chunk_len=chunk_len,
                loss=build_loss(config),
                clip=config.clip,
                decay_towards=config.decay_towards,
                read=config.read,
                outer_gradient=outer_gradient,
                decay=config.decay,
                decay_start=config.decay_start,
                use_momentum=config.use_momentum,
                max_learning_rate=config.max_learning_rate,
            )
            rule = _add_retention(titans, config)
        case "delta":
            rule = DeltaRule(
                chunk_len=chunk_len,
                read=config.read,
                use_momentum=config.use_momentum,
                outer_gradient=outer_gradient,
                use_decay=config.decay != "none",
                error_after_decay=config.error_after_decay,
                decay_start=config.decay_start,
                max_learning_rate=config.max_learning_rate,
            )
        case "omega":
            omega = OmegaRule(
                d,
                window=config.window,
                chunk_len=chunk_len,
                loss=build_loss(config),
                clip=config.clip,
                read=config.read,
                outer_gradient=outer_gradient,
                decay_start=config.decay_start,
                max_learning_rate=config.max_learning_rate,
            )
            rule = _add_retention(omega, config)
        case "memora":
            rule = MemoraRule(
                chunk_len=chunk_len,
                loss=build_loss(config),
                clip=config.clip,
                read=config.read,
                outer_gradient=outer_gradient,
                decay_start=config.decay_start,
                max_learning_rate=config.max_learning_rate,
            )
        case "large_chunk":
            rule = LargeChunkRule(
                _build_update(config),
                chunk_len=chunk_len,
                loss=build_loss(config),
                clip=config.clip,
                outer_gradient=outer_gradient,
                use_decay=config.decay != "none",
                decay_start=config.decay_start,
                max_learning_rate=config.max_learning_rate,
            )
    return ReadOnlyRule(rule) if off else rule


def _add_retention(rule: TitansRule | OmegaRule, config: HeadsConfig) -> AbstractRule:
    match config.retention:
        case "decay":
            return rule
        case "elastic_net":
            return RetentionRule(rule, ElasticNet(config.retention_threshold))
        case "norm":
            return RetentionRule(rule, NormRetention(config.retention_power))


def _build_update(config: HeadsConfig) -> AbstractChunkUpdate:
    match config.update:
        case "gradient":
            return GradientUpdate()
        case "muon":
            return MuonUpdate()
        case "softmax":
            return SoftmaxUpdate()
