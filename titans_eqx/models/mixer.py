"""The block protocol: what every Titans variant is to the model around it.

    x = x + mix(norm(x));  x = x + feedforward(norm(x))

A variant is a mixer: a layer over a sequence with a state of fixed size. It can be run
on a whole sequence, on pieces of any length, or token by token, with the same result.
"""

from abc import abstractmethod
from typing import Generic, TypeVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from titans_eqx.memory.layer import NeuralMemory, NeuralMemoryState
from titans_eqx.nn.feedforward import SwiGLU

State = TypeVar("State")


class AbstractMixer(eqx.Module, Generic[State]):
    """Mixes information over time; the variants are its leaves."""

    @abstractmethod
    def init_state(self) -> State:
        """The state before the first token of a sequence."""

    @abstractmethod
    def __call__(
        self, x: Float[Array, "seq d_model"], state: State | None
    ) -> tuple[Float[Array, "seq d_model"], State]:
        """Mix a piece of a sequence.

        Args:
            x: Normalised stream, at least one token.
            state: Where the stream stands; None for a fresh sequence.

        Returns:
            What the block adds to the stream, and the state after the last token.
        """

    @abstractmethod
    def step(
        self, x: Float[Array, " d_model"], state: State
    ) -> tuple[Float[Array, " d_model"], State]:
        """Mix one token.

        Args:
            x: Normalised stream at the token.
            state: Where the stream stands.

        Returns:
            What the block adds to the stream, and the next state.
        """


class AbstractMemoryMixer(AbstractMixer[State]):
    """A mixer with a neural memory in it."""

    memory: eqx.AbstractVar[NeuralMemory]

    @abstractmethod
    def memory_view(
        self, x: Float[Array, " d_model"], state: State
    ) -> tuple[Float[Array, " d_model"], NeuralMemoryState]:
        """What the memory is about to read.

        Args:
            x: Normalised stream at the token.
            state: Where the stream stands.

        Returns:
            What the memory is given at the token, and its state before it.
        """


class Block(eqx.Module):
    """One layer of the model: a mixer and a feed-forward, both pre-norm residual."""

    mixer_norm: eqx.nn.RMSNorm
    mixer: AbstractMixer
    feedforward_norm: eqx.nn.RMSNorm
    feedforward: SwiGLU

    def __init__(
        self, mixer: AbstractMixer, d_model: int, d_hidden: int, *, key: PRNGKeyArray
    ) -> None:
        """Wrap a mixer.

        Args:
            mixer: The variant.
            d_model: Width of the stream.
            d_hidden: Inner width of the feed-forward.
            key: Random key of the feed-forward.
        """
        self.mixer_norm = eqx.nn.RMSNorm(d_model, use_bias=False)
        self.mixer = mixer
        self.feedforward_norm = eqx.nn.RMSNorm(d_model, use_bias=False)
        self.feedforward = SwiGLU(d_model, d_hidden, key=key)

    def init_state(self) -> PyTree[Array]:
        """The mixer's state before the first token."""
        return self.mixer.init_state()

    def __call__(
        self, x: Float[Array, "seq d_model"], state: PyTree[Array] | None
    ) -> tuple[Float[Array, "seq d_model"], PyTree[Array]]:
        """Run the layer on a piece of a sequence; see `AbstractMixer.__call__`."""
        mixed, state = self.mixer(jax.vmap(self.mixer_norm)(x), state)
        return jax.vmap(self._feed)(x + mixed), state

    def step(
        self, x: Float[Array, " d_model"], state: PyTree[Array]
    ) -> tuple[Float[Array, " d_model"], PyTree[Array]]:
        """Run the layer on one token; see `AbstractMixer.step`."""
        mixed, state = self.mixer.step(self.mixer_norm(x), state)
        return self._feed(x + mixed), state

    def _feed(self, x: Float[Array, " d_model"]) -> Float[Array, " d_model"]:
        return x + self.feedforward(self.feedforward_norm(x))
