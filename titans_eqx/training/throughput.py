"""Speed of training: tokens per second, and model FLOP/s beside a device's peak.

Counted are the matrix products of the forward pass, three times: a backward pass needs
two products for each. What is computed again to save memory is not counted, so it shows
as a lower utilisation (Chowdhery et al., PaLM, 2022, appendix B).
"""

import contextlib
import functools
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from titans_eqx.config import ModelConfig, RunConfig
from titans_eqx.models.build import abstract_model
from titans_eqx.nn.flops import count_flops
from titans_eqx.sharding.mesh import AnyMesh

TRAINING_PASSES: Final = 3

# Dense products in bfloat16, of one jax device. NVIDIA: data sheets of the products,
# without sparsity; Cloud TPU: "peak compute per chip" in its system architecture pages.
# The first name that is part of the device's counts.
PEAKS: Final = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}
NOT_THESE: Final = ("TPU v4 lite", "A100X")


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """What a run asks of its devices, and what they can do."""

    model: ModelConfig
    n_devices: int
    peak: float | None  # FLOP/s of one device; None where it is not known

    @classmethod
    def of(cls, config: RunConfig, mesh: AnyMesh) -> "Throughput":
        """That of a run; `train.peak_flops` wins over the known peaks."""
        peak = config.train.peak_flops or known_peak(jax.devices()[0].device_kind)
        return cls(model=config.model, n_devices=mesh.size, peak=peak)

    def rates(
        self, shapes: Mapping[tuple[int, int], int], seconds: float
    ) -> dict[str, float]:
        """What was reached in some time, by the names of the metrics.

        Args:
            shapes: How many batches were read, by their sequences and tokens in each.
            seconds: In which that was done.

        Returns:
            `tokens_per_second` of all devices, `flops_per_second` of one, and its share
            of the peak, `utilisation`; what is not known is left out.
        """
        n_tokens = n_flops = 0
        for (n_rows, length), count in shapes.items():
            n_tokens += count * n_rows * length
            # Frozen, and so with a hash, which pyright does not know.
            flops = training_flops(self.model, length)  # pyright: ignore
            n_flops += count * n_rows * (flops or math.nan)
        rates = {"tokens_per_second": n_tokens / seconds}
        rate = n_flops / seconds / self.n_devices
        if math.isfinite(rate):
            rates["flops_per_second"] = rate
            if self.peak is not None:
                rates["utilisation"] = rate / self.peak
        return rates


class SpeedMeter:
    """Counts batches, and the time in which nothing but training on them was done."""

    def __init__(self, throughput: Throughput) -> None:
        """Start at once."""
        self._throughput = throughput
        self.restart()

    def restart(self) -> None:
        """Count from now on."""
        self._shapes: Counter[tuple[int, int]] = Counter()
        self._since = time.perf_counter()

    def count(self, shape: tuple[int, int]) -> None:
        """Count a batch, of so many sequences and tokens in each."""
        self._shapes[shape] += 1

    @contextlib.contextmanager
    def paused(self, state: PyTree) -> Iterator[None]:
        """Leave out what is done in the block.

        Args:
            state: Waited for first: steps under way are part of training.
        """
        jax.block_until_ready(state)
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def rates(self) -> dict[str, float]:
        """What was reached since the start, see `Throughput.rates`."""
        seconds = time.perf_counter() - self._since
        return self._throughput.rates(self._shapes, seconds)


def known_peak(device_kind: str) -> float | None:
    """FLOP/s in bfloat16 of a kind of device, as jax names it; None if not known."""
    if any(name in device_kind for name in NOT_THESE):
        return None
    return next((peak for name, peak in PEAKS.items() if name in device_kind), None)


@functools.lru_cache(maxsize=256)
def training_flops(config: ModelConfig, length: int) -> int | None:
    """FLOPs of the products that training on one sequence needs.

    Returns:
        The number; None for a model whose products stand in a loop of unknown length.
    """

    def forward(arrays: Any, tokens: jax.Array) -> jax.Array:
        return eqx.combine(arrays, static)(tokens)[0]

    arrays, static = abstract_model(config)
    tokens = jax.ShapeDtypeStruct((length,), jnp.int32)
    try:
        return TRAINING_PASSES * count_flops(forward, arrays, tokens)
    except ValueError:
        return None
