"""What a user of the package writes: a network, a gated one, a loss and a rule."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from titans_eqx.axes import MemoryWeights
from titans_eqx.memory import (
    AbstractInnerLoss,
    AbstractMemoryNet,
    AbstractRule,
    AbstractRuleState,
    GateSpec,
    OuterGradient,
)
from titans_eqx.memory.decay import chunk_decay


class SkipNet(AbstractMemoryNet):
    """A network that the package has never seen: tanh, a skip, a last scaling."""

    @property
    def is_linear(self):
        return False

    @property
    def shapes(self):
        return (4, 3), (3, 4), (4, 4)

    def forward(self, linear, x):
        middle = x + linear(1, jnp.tanh(linear(0, x)))
        return jnp.sin(linear(2, middle)) * 2.0 + middle


class GatedNet(AbstractMemoryNet):
    """`M(x) = x + W_2 (gelu(W_0 x) * W_1 x)`."""

    d: int = eqx.field(static=True, default=4)

    @property
    def is_linear(self):
        return False

    @property
    def shapes(self):
        return (self.d, 6), (self.d, 6), (6, self.d)

    def forward(self, linear, x):
        return x + linear(2, jax.nn.gelu(linear(0, x)) * linear(1, x))


class HuberLoss(AbstractInnerLoss):
    """Squared near the value, linear beyond a threshold that depends on the token."""

    def gate_specs(self):
        return {"threshold": GateSpec(size=1, start=0.3, high=2.0, neutral=1.0)}

    def gradient(self, outputs, values, gates):
        return jnp.clip(outputs - values, -gates["threshold"], gates["threshold"])


class HebbianState(AbstractRuleState):
    weights: MemoryWeights
    chunk_offset: Int[Array, ""]


class HebbianRule(AbstractRule[HebbianState]):
    """`M_t = (1 - forget_t) M_{t-1} + write_t k_t^T v_t`, of a linear memory."""

    chunk_len: int = eqx.field(static=True, default=3)
    outer_gradient: OuterGradient = eqx.field(static=True, default=OuterGradient())

    def gate_specs(self, net) -> Mapping[str, GateSpec]:
        one = GateSpec(size=1, start=0.1)
        return {"forget": one, "write": one}

    def init_state(self, weights):
        return self.start_chunk(weights)

    def end_chunk(self, state):
        return state.weights

    def start_chunk(self, carry):
        return HebbianState(carry, jnp.zeros((), jnp.int32))

    def surprise(self, net, token, state):
        return (-jnp.outer(token.keys, token.values),)

    def step(self, net, token, state, initial):
        (u,) = self.surprise(net, token, state)
        forget, write = token.gates["forget"][0], token.gates["write"][0]
        weights = ((1 - forget) * state.weights[0] - write * u,)
        return net(weights, token.queries), HebbianState(weights, state.chunk_offset)

    def chunk(self, net, inputs, is_real, state, initial):
        (m,), k = state.weights, inputs.keys
        v = inputs.gates["write"] * inputs.values
        decay = chunk_decay(inputs.gates["forget"][:, 0], None, is_real)
        carried, written = decay.carry_weights[:, None], decay.write_weights

        def linear(layer, x):
            return carried * (x @ m) + (written * (x @ k.T)) @ v

        weights = (decay.carry_weights[-1] * m + (written[-1][:, None] * k).T @ v,)
        reads = net.forward(linear, inputs.queries)
        return reads, HebbianState(weights, state.chunk_offset)
