"""The delta rule for linear memories: gradients at the token's own weights, exactly.

    e_t = M_{t-1}(k_t) - v_t
    S_t = eta_t S_{t-1} - theta_t k_t^T e_t
    M_t = (1 - alpha_t) M_{t-1} + S_t,    y_t = M_t(q_t)

It is the Titans rule of a linear memory without an anchor. With one linear map the
gradient is linear in the weights, so all errors of a chunk are the solution of one
triangular system. Insert `M_{t-1}` as `decay.py` unrolls it (`A`, `f`, `H`; the weights
`M` and velocity `S` are those before the chunk; `c_t` is what the network adds to its
linear map, such as the residual `k_t`):

    (I + L) E = B,    L[t, i] = H[t-1, i] theta_i (k_t . k_i)  for i < t
    B_t = A_{t-1} k_t M + f_{t-1} k_t S + c_t - v_t

The chunk length decides the speed, never the result. With `error_after_decay` the error
is taken at `(1 - alpha_t) M_{t-1}`; then `A_{t-1}`, `f_{t-1}` and row `t` of `L` are
multiplied by `1 - alpha_t`, and without momentum this is Gated DeltaNet (arXiv
2412.06464) with `g_t = 1 - alpha_t` and `beta_t = theta_t`.

There is no clipping. Unit keys and theta < 1 are stable by themselves (theta ends
earlier where features are longer than their key); with momentum they are not (eta = 0.9
with theta = 0.5 overflows on keys that come back rarely), so the gate eta ends where
`theta / (1 - eta)` reaches 2. Without momentum, and with the error after the decay,
theta may go to 2: `1 - theta k k^T` then mirrors what is stored under a key, which
following a state such as parity needs (arXiv 2411.12537).
"""

from collections.abc import Mapping
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from titans_eqx.axes import MemoryWeights
from titans_eqx.config.memory_check import largest_delta_rate
from titans_eqx.errors import check_option
from titans_eqx.memory.affine import AbstractAffineRule, AffineMap
from titans_eqx.memory.decay import chunk_decay, weighted_outer
from titans_eqx.memory.delta_chunk import DeltaState, PreparedChunk, PreparedRows
from titans_eqx.memory.inputs import GateSpec, MemoryInputs, Start
from titans_eqx.memory.loss import SquaredError, token_surprise
from titans_eqx.memory.net import AbstractMemoryNet, largest_square_norm
from titans_eqx.memory.outer_gradient import OuterGradient
from titans_eqx.nn.norm import bounded
from titans_eqx.nn.precision import at_least_float32
from titans_eqx.nn.remat import save_for_backward
from titans_eqx.nn.triangular import solve_unit_lower, unit_lower_inverse


class DeltaRule(AbstractAffineRule[DeltaState]):
    """Gates alpha (`decay`), eta (`momentum`) and theta (`learning_rate`).

    The outer gradient always goes through the errors in full; of `outer_gradient` only
    `initial_memory` and `truncate_every` matter.
    """

    chunk_len: int = eqx.field(static=True)
    read: Literal["after", "before"] = eqx.field(static=True)
    use_momentum: bool = eqx.field(static=True)
    outer_gradient: OuterGradient = eqx.field(static=True)
    use_decay: bool = eqx.field(static=True)
    error_after_decay: bool = eqx.field(static=True)
    decay_start: Start = eqx.field(static=True)
    max_learning_rate: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        chunk_len: int = 32,
        read: Literal["after", "before"] = "after",
        use_momentum: bool = True,
        outer_gradient: OuterGradient | None = None,
        use_decay: bool = True,
        error_after_decay: bool = False,
        decay_start: Start = 0.01,
        max_learning_rate: float = 1.0,
    ) -> None:
        """Choose the options of the rule.

        Args:
            chunk_len: Tokens taken in at once.
            read: Whether a token reads after or before its own write.
            use_momentum: Whether there is a gate eta; without it eta is zero.
            outer_gradient: Where the outer gradient stops; default `OuterGradient()`.
            use_decay: Whether there is a gate alpha; without it alpha is zero.
            error_after_decay: Whether `e_t` is taken at the decayed weights, as in
                Gated DeltaNet. The velocity has no part in that: it is added after.
            decay_start: alpha before training, see `Start`.
            max_learning_rate: Upper bound of theta times the squared norm of what
                enters the linear map, 1 for a key. theta starts at half of its bound.

        Raises:
            ValueError: If the error is to be taken after a decay that there is not, or
                theta may grow too large.
        """
        check_option("read", read, "after", "before")
        if error_after_decay and not use_decay:
            raise ValueError(
                "error_after_decay needs a decay, got use_decay=False. Use one of them."
            )
        largest = largest_delta_rate(use_momentum, use_decay, error_after_decay)
        if not 0 < max_learning_rate <= largest:
            raise ValueError(
                f"max_learning_rate must be > 0 and <= {largest} (2 needs "
                "use_momentum=False, and error_after_decay=True or use_decay=False), "
                f"got max_learning_rate={max_learning_rate}."
            )
        self.chunk_len = chunk_len
        self.read = read
        self.use_momentum = use_momentum
        self.outer_gradient = outer_gradient or OuterGradient()
        self.use_decay = use_decay
        self.error_after_decay = error_after_decay
        self.decay_start = decay_start
        self.max_learning_rate = max_learning_rate

    def gate_specs(self, net: AbstractMemoryNet) -> Mapping[str, GateSpec]:
        """See `AbstractRule.gate_specs`."""
        if not net.is_linear:
            raise ValueError(
                "the delta rule writes linear memories only, got a network that is not "
                "(AbstractMemoryNet.is_linear). Use MemoryNet(d, depth=1, norm=False)."
            )
        high = self.max_learning_rate / largest_square_norm(net)
        specs = {"learning_rate": GateSpec(size=1, start=high / 2, high=high)}
        if self.use_decay:
            specs["decay"] = GateSpec(size=1, start=self.decay_start)
        if self.use_momentum:
            # Beyond, the velocity overshoots more and more.
            high = 1 - self.max_learning_rate / 2
            specs["momentum"] = GateSpec(size=1, start=0.1, high=high, neutral=1.0)
        return specs

    def init_state(self, weights: MemoryWeights) -> DeltaState:
        """See `AbstractRule.init_state`."""
        weights = tuple(at_least_float32(w) for w in weights)
        velocity = jax.tree.map(jnp.zeros_like, weights) if self.use_momentum else ()
        return self.start_chunk((weights, velocity))

    def end_chunk(self, state: DeltaState) -> tuple[MemoryWeights, MemoryWeights]:
        """See `AbstractRule.end_chunk`."""
        return state.weights, state.velocity

    def start_chunk(self, carry: tuple[MemoryWeights, MemoryWeights]) -> DeltaState:
        """See `AbstractRule.start_chunk`."""
        return DeltaState(
            weights=carry[0], velocity=carry[1], chunk_offset=jnp.zeros((), jnp.int32)
        )

    def surprise(
        self, net: AbstractMemoryNet, token: MemoryInputs, state: DeltaState
    ) -> MemoryWeights:
        """See `AbstractRule.surprise`: `k_t^T e_t`."""
        (m,) = state.weights
        if self.error_after_decay:
            m = (1 - token.gates["decay"][0]) * m
        return token_surprise(net, SquaredError(), (m,), token)

    def step(
        self,
        net: AbstractMemoryNet,
        token: MemoryInputs,
        state: DeltaState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, " d"], DeltaState]:
        """See `AbstractRule.step`."""
        (u,) = self.surprise(net, token, state)
        s = -token.gates["learning_rate"][0] * u
        if self.use_momentum:
            s = token.gates["momentum"][0] * state.velocity[0] + s
        (m,) = state.weights
        if self.use_decay:
            m = (1 - token.gates["decay"][0]) * m
        velocity = (s,) if self.use_momentum else ()
        new = DeltaState(
            weights=(m + s,), velocity=velocity, chunk_offset=state.chunk_offset
        )
        seen = new if self.read == "after" else state
        return net(seen.weights, token.queries), new

    def prepare(
        self,
        net: AbstractMemoryNet,
        inputs: MemoryInputs,
        is_real: Bool[Array, " chunk"],
    ) -> PreparedChunk:
        """See `AbstractPreparedRule.prepare`."""
        theta = inputs.gates["learning_rate"][:, 0]
        alpha = inputs.gates["decay"][:, 0] if self.use_decay else jnp.zeros_like(theta)
        eta = inputs.gates["momentum"][:, 0] if self.use_momentum else None
        written = chunk_decay(alpha, eta, is_real)
        before = written.before_own_write()
        seen = written if self.read == "after" else before
        keys, key_rest = _linear_part(net, inputs.keys)
        queries, query_rest = _linear_part(net, inputs.queries)
        kept = 1 - alpha if self.error_after_decay else jnp.ones_like(alpha)
        lower = before.write_weights * save_for_backward(keys @ keys.T) * theta[None, :]
        lower = kept[:, None] * lower
        return PreparedChunk(
            keys=PreparedRows(
                entering=keys,
                rest=key_rest - bounded(inputs.values),
                carry_weights=kept * before.carry_weights,
                carry_velocity=kept * before.carry_velocity,
            ),
            queries=PreparedRows(
                entering=queries,
                rest=query_rest,
                carry_weights=seen.carry_weights,
                carry_velocity=seen.carry_velocity,
            ),
            lower=lower,
            inverse=unit_lower_inverse(lower),
            scores=seen.write_weights * save_for_backward(queries @ keys.T),
            theta=theta,
            end=written.at_end(),
        )

    def chunk_prepared(
        self,
        net: AbstractMemoryNet,
        prepared: PreparedChunk,
        state: DeltaState,
        initial: MemoryWeights | None,
    ) -> tuple[Float[Array, "chunk d"], DeltaState]:
        """See `AbstractPreparedRule.chunk_prepared`."""
        keys, end = prepared.keys.entering, prepared.end
        right = prepared.keys.read(state)
        errors = solve_unit_lower(prepared.lower, prepared.inverse, right)
        steps = -prepared.theta[:, None] * errors  # as in descent
        reads = prepared.queries.read(state) + prepared.scores @ steps

        (m,) = state.weights
        new_m = end.carry_weights[0] * m
        new_m = new_m + weighted_outer(end.write_weights, keys, steps)
        velocity = ()
        if self.use_momentum:
            (s,) = state.velocity
            new_m = new_m + end.carry_velocity[0] * s
            written = weighted_outer(end.velocity_write[None], keys, steps)
            velocity = (end.velocity_carry * s + written,)
        return reads, DeltaState(
            weights=(new_m,), velocity=velocity, chunk_offset=state.chunk_offset
        )

    def chunk_map(self, net: AbstractMemoryNet, prepared: PreparedChunk) -> AffineMap:
        """See `AbstractAffineRule.chunk_map`."""
        return prepared.affine_map(with_velocity=self.use_momentum)


def _linear_part(
    net: AbstractMemoryNet, x: Float[Array, "chunk d"]
) -> tuple[Float[Array, "chunk d_in"], Float[Array, "chunk d"]]:
    """What enters the one linear map, and what the network adds to its output."""
    entering: list[Array] = []

    def linear(layer: int, rows: Array) -> Array:
        entering.append(rows)
        return jnp.zeros((rows.shape[0], net.shapes[layer][1]), rows.dtype)

    rest = net.forward(linear, x)
    return entering[0], rest
