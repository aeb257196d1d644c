"""The definition of the memory: one token at a time.

    u_t = grad_M 1/2 |M(k_t) - v_t|^2   at the anchor    (Titans, Eqs. 12 and 16)
    S_t = eta_t S_{t-1} - theta_t u_t                    (Eqs. 10 and 14)
    M_t = (1 - alpha_t) M_{t-1} + S_t                    (Eq. 13)
    y_t = M_t(q_t)                                       (Eq. 15)

The anchor is the weights at the end of the last whole chunk. This form builds the
gradient of every token in full; it is what decoding runs, and what `chunked.py` must
reproduce.

Reading: the paper does not say whether a token reads the memory before or after its own
write. We read after it, as `rule.read` says, which is causal and lets a token use
itself.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory.outer_gradient import select
from titans_eqx.memory.net import AbstractMemoryNet
from titans_eqx.memory.rule import UpdateRule
from titans_eqx.memory.state import MemoryInputs, MemoryState
from titans_eqx.memory.surprise import square_norm, token_surprise
from titans_eqx.sharding.varying import scan


def scan_tokens(
    net: AbstractMemoryNet,
    inputs: MemoryInputs,
    state: MemoryState,
    *,
    chunk_len: int,
    rule: UpdateRule | None = None,
    initial: MemoryWeights | None = None,
) -> tuple[Float[Array, "seq d"], MemoryState]:
    """Write and read a sequence token by token.

    Args:
        net: Structure of the memory.
        inputs: Queries, keys, values and gates of the tokens.
        state: Memory before the first of them, at any phase.
        chunk_len: Tokens per anchor.
        rule: Clipping, forgetting, read order and gradient filters; default
            `UpdateRule()`.
        initial: M_0, needed when the rule decays towards it.

    Returns:
        Reads `y_t`, and the memory after the last token.

    Raises:
        ValueError: If `initial` is missing and the rule decays towards it.
    """
    rule = rule or UpdateRule()
    target = decay_target(rule, initial, state.weights)

    def body(
        carry: tuple[MemoryState, Int[Array, ""]], token: MemoryInputs
    ) -> tuple[tuple[MemoryState, Int[Array, ""]], Float[Array, " d"]]:
        state, chunks_read = carry
        weights, momentum = _write(net, token, state, target, rule)
        seen = weights if rule.read == "after" else state.weights
        y = net(seen, token.queries)

        is_chunk_end = state.phase + 1 == chunk_len
        chunks_read = chunks_read + is_chunk_end.astype(jnp.int32)
        weights, momentum = rule.boundary.carry(
            (weights, momentum), chunks_read, is_chunk_end
        )
        state = MemoryState(
            anchor=select(is_chunk_end, weights, state.anchor),
            weights=weights,
            momentum=momentum,
            phase=jnp.where(is_chunk_end, 0, state.phase + 1),
        )
        return (state, chunks_read), y

    start = (state, jnp.zeros((), jnp.int32))
    (state, _), reads = scan(body, start, inputs)
    return reads, state


def decay_target(
    rule: UpdateRule, initial: MemoryWeights | None, like: MemoryWeights
) -> MemoryWeights | None:
    """Where forgetting leads.

    Args:
        rule: Says whether that is zero or M_0.
        initial: M_0.
        like: Weights whose type the target takes.

    Returns:
        M_0, or None for zero.

    Raises:
        ValueError: If M_0 is needed and missing.
    """
    if rule.decay_towards == "zero":
        return None
    if initial is None:
        raise ValueError(
            'decay_towards="initial" needs the initial weights M_0, got initial=None. '
            "Pass initial=... or use decay_towards='zero'."
        )
    return jax.tree.map(lambda m0, w: m0.astype(w.dtype), initial, like)


def _write(
    net: AbstractMemoryNet,
    token: MemoryInputs,
    state: MemoryState,
    target: MemoryWeights | None,
    rule: UpdateRule,
) -> tuple[MemoryWeights, MemoryWeights]:
    """Weights M_t and momentum S_t after one token."""
    anchor = rule.boundary.anchor(state.anchor)
    surprise = token_surprise(net, anchor, token.keys, token.values)
    step = token.step * rule.clip_scale(square_norm(surprise))
    momentum = tuple(
        token.momentum[layer] * s - step[layer] * u
        for layer, (s, u) in enumerate(zip(state.momentum, surprise, strict=True))
    )
    decay = [token.layer_decay(layer)[:, None] for layer in range(len(momentum))]
    weights = tuple(
        (1 - alpha) * m + s
        for alpha, m, s in zip(decay, state.weights, momentum, strict=True)
    )
    if target is not None:
        weights = tuple(
            m + alpha * m0 for alpha, m, m0 in zip(decay, weights, target, strict=True)
        )
    return weights, momentum
