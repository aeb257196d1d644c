"""What MAG and MAL share: a memory beside a window, and the prefix that both may read.

Reading: whether the persistent tokens also pass through the memory is left open by the
paper; `persistent_in_memory` decides, and by default they do not.
"""

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from titans_eqx.attention import SlidingAttention, WindowCache
from titans_eqx.memory import AbstractMemory
from titans_eqx.models.units import read_units
from titans_eqx.nn.documents import Documents


class HybridState(eqx.Module):
    """Where a layer of a memory and a window stands in its stream."""

    memory: PyTree[Array]
    window: WindowCache


def init_hybrid_state(
    memory: AbstractMemory, attention: SlidingAttention, *, persistent_in_memory: bool
) -> HybridState:
    """A fresh memory, which may have read the persistent tokens, and no window."""
    prefix = attention.heads.persistent_tokens if persistent_in_memory else None
    return HybridState(memory.init_state(prefix), attention.init_state())


def read_memory(
    memory: AbstractMemory,
    attention: SlidingAttention,
    x: Float[Array, "seq d_model"],
    state: HybridState | None,
    documents: Documents | None,
    *,
    persistent_in_memory: bool,
) -> tuple[Float[Array, "seq d_model"], PyTree[Array]]:
    """What the memory answers to a part of a sequence, and its state after it."""
    stream = None if state is None else state.memory
    prefix = attention.heads.persistent_tokens if persistent_in_memory else None
    if documents is not None:
        return memory.read_documents(x, documents, memory.init_state(prefix), stream)
    if stream is None and prefix is not None:
        # The prefix was a chunk of its own.
        return read_units(memory, x, memory.init_state(prefix), memory.chunk_len)
    return memory(x, stream)
