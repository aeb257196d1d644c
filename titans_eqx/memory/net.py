"""The network whose weights are the memory.

A memory network is any composition of linear maps with functions that have no
parameters and act on each row by itself. It is written once, against a `linear`
callback, and the callback decides what a linear map does: multiply by weights (a plain
read), record its input and expose its gradient (a write), or apply a whole chunk of
per-token weights that are never built (the chunked read). So a new network gets every
form of every rule from one new class.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from titans_eqx.axes import MemoryWeights
from titans_eqx.errors import check_size
from titans_eqx.memory.features import monomials, n_monomials
from titans_eqx.nn.norm import standardize, unit_norm
from titans_eqx.nn.remat import save_for_backward

LinearMap: TypeAlias = Callable[
    [int, Float[Array, "*rows d_in"]], Float[Array, "*rows d_out"]
]
"""Applies memory layer `l` (first argument) to rows."""


class AbstractMemoryNet(eqx.Module):
    """Structure of a memory, apart from its weights, which belong to a sequence."""

    @property
    @abstractmethod
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """`(d_in, d_out)` of each linear map, in the order of application."""

    @property
    @abstractmethod
    def is_linear(self) -> bool:
        """Whether the output is one linear map, plus a function of the input alone.

        Only then is the gradient linear in the weights, as the delta rule needs it.
        """

    @abstractmethod
    def forward(
        self, linear: LinearMap, x: Float[Array, "*rows d"]
    ) -> Float[Array, "*rows d"]:
        """The network with its linear maps left open.

        Args:
            linear: To be called exactly once for each memory layer.
            x: Rows; everything between the maps must act on each row by itself.
        """

    def __call__(
        self, weights: MemoryWeights, x: Float[Array, "*rows d"]
    ) -> Float[Array, "*rows d"]:
        """Read the memory, one query or one in each row: `M(x)` (Titans, Eq. 15)."""
        return self.forward(
            lambda layer, rows: save_for_backward(rows @ weights[layer]), x
        )

    def init(self, key: PRNGKeyArray) -> MemoryWeights:
        """Draw M_0: normal, of variance `1 / d_in`.

        Never zero, since an all-zero deep memory has no gradient.
        """
        keys = jr.split(key, len(self.shapes))
        return tuple(
            jr.normal(k, shape) * shape[0] ** -0.5
            for k, shape in zip(keys, self.shapes, strict=True)
        )


class MemoryNet(AbstractMemoryNet):
    """MLP memory `M(x) = x + LN(W_depth gelu( ... gelu(W_1 x)))`, without biases."""

    d: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    expansion: int = eqx.field(static=True)
    residual: bool = eqx.field(static=True)
    norm: bool = eqx.field(static=True)
    degree: int = eqx.field(static=True)
    feature_scale: float = eqx.field(static=True)

    def __init__(
        self,
        d: int,
        depth: int = 2,
        expansion: int = 4,
        *,
        residual: bool = True,
        norm: bool = True,
        degree: int = 1,
        feature_scale: float = 0.0,
    ) -> None:
        """Describe the network; its weights come from `init`.

        Args:
            d: Width of queries, keys and values.
            depth: Number of linear maps; 1 is the linear memory.
            expansion: Hidden width over `d`; unused at depth 1.
            residual: Add the input to the output.
            norm: Normalise the output of the last map (parameter-free layer norm).
            degree: The first map takes all monomials of the input up to this degree.
            feature_scale: Multiplies the input of the monomials, which are brought to
                unit norm: the larger, the more the highest degree counts, and the less
                two inputs that are only similar have in common. 0 leaves out both.

        Raises:
            ValueError: If `d`, `depth`, `expansion` or `degree` is less than 1, or
                `feature_scale` less than 0.
        """
        sizes = {"d": d, "depth": depth, "expansion": expansion, "degree": degree}
        for name, value in sizes.items():
            check_size(name, value)
        if feature_scale < 0:
            raise ValueError(
                f"feature_scale must be at least 0, got feature_scale={feature_scale}."
            )
        self.d = d
        self.depth = depth
        self.expansion = expansion
        self.residual = residual
        self.norm = norm
        self.degree = degree
        self.feature_scale = feature_scale

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """See `AbstractMemoryNet.shapes`."""
        d_in = n_monomials(self.d, self.degree)
        widths = [d_in, *[self.d * self.expansion] * (self.depth - 1), self.d]
        return tuple(zip(widths[:-1], widths[1:], strict=True))

    @property
    def is_linear(self) -> bool:
        """See `AbstractMemoryNet.is_linear`."""
        return self.depth == 1 and not self.norm

    def forward(
        self, linear: LinearMap, x: Float[Array, "*rows d"]
    ) -> Float[Array, "*rows d"]:
        """See `AbstractMemoryNet.forward`."""
        rows = linear(0, self._features(x))
        for layer in range(1, self.depth):
            rows = linear(layer, jax.nn.gelu(rows))
        if self.norm:
            rows = standardize(rows)
        return x + rows if self.residual else rows

    def _features(self, x: Float[Array, "*rows d"]) -> Float[Array, "*rows features"]:
        if self.feature_scale == 0:
            return monomials(x, self.degree)
        return unit_norm(monomials(self.feature_scale * x, self.degree))


def largest_square_norm(net: AbstractMemoryNet) -> float:
    """Of what the first linear map is given, for an input of norm 1.

    A network from outside has to keep to 1, or the delta rule has no bound.
    """
    if isinstance(net, MemoryNet) and net.feature_scale == 0:
        # That of the monomials of one variable that is 1; of no input they have more.
        return sum(math.factorial(i) ** -2 for i in range(1, net.degree + 1))
    return 1.0


def check_width(net: AbstractMemoryNet, d_head: int) -> None:
    """Refuse a network that does not map heads of width `d_head` to such.

    Raises:
        ValueError: If it has another width.
    """

    def read() -> Array:
        return net(net.init(jr.key(0)), jnp.zeros(d_head))

    try:
        fits = jax.eval_shape(read).shape == (d_head,)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"the memory network must map d_model / n_heads = {d_head} features to as "
            f"many, got {net}. Build it with that width."
        )
