"""The processes of a run: who reports, what they agree on, values that are split.

In a run of several processes each of them executes the same program on its own devices.
All functions here but `is_primary` may wait for the other processes: every process
calls them in the same order, in its main thread. With one process they cost nothing.
"""

import json
from collections.abc import Callable
from typing import Any, Final, TypeVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, PyTree

from titans_eqx.errors import UserError

Answer = TypeVar("Answer")

TEXT_BLOCK: Final = 1024  # bytes; texts of few lengths need few compiled programs


class OtherProcessError(UserError):
    """What process 0 was refused, said by another process."""


def is_primary() -> bool:
    """Whether this is the process that reports, locks and writes: process 0."""
    return jax.process_index() == 0


def from_primary(ask: Callable[[], Answer]) -> Answer:
    """Run a function in process 0 alone and give its answer to every process.

    Args:
        ask: Returns what JSON can hold.

    Raises:
        Exception: In process 0 what `ask` raises.
        OtherProcessError: In the others, with the same message.
    """
    if jax.process_count() == 1:
        return ask()
    message: dict[str, Any] = {}
    failure = None
    if is_primary():
        try:
            message["answer"] = ask()
        except Exception as error:
            failure = error
            message["refusal"] = f"{error}"
    message = json.loads(_broadcast(json.dumps(message)))
    if failure is not None:
        raise failure
    if "refusal" in message:
        raise OtherProcessError(message["refusal"])
    return message["answer"]


def whole(array: Array) -> Array | np.ndarray:
    """All values of an array, where this process can reach them.

    What is split over devices of several processes is gathered, and only that.
    """
    if array.is_fully_addressable:
        return array
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jr.key_data(array)
    if array.is_fully_replicated:
        return array.addressable_data(0)
    if not _is_in_each_process(array):
        return multihost_utils.process_allgather(array, tiled=True)
    values = np.empty(array.shape, array.dtype)
    for shard in array.addressable_shards:
        values[shard.index] = shard.data
    return values


def on_host(tree: PyTree[Array]) -> PyTree[np.ndarray]:
    """The values of arrays, all of them in every process."""
    return jax.tree.map(lambda x: np.asarray(whole(x)), tree)


def on_first_device(tree: PyTree[Array]) -> PyTree[Array]:
    """The same arrays on the first device of this process."""
    device = jax.local_devices()[0]
    return jax.tree.map(lambda x: jax.device_put(whole(x), device), tree)


def _is_in_each_process(array: Array) -> bool:
    """Whether the devices of each process hold all parts of an array."""
    parts: dict[int, set[str]] = {}
    for device, index in array.sharding.devices_indices_map(array.shape).items():
        parts.setdefault(device.process_index, set()).add(str(index))
    return all(one == set.union(*parts.values()) for one in parts.values())


def _broadcast(text: str) -> str:
    content = np.frombuffer(text.encode(), np.uint8)
    size = multihost_utils.broadcast_one_to_all(np.array(content.size, np.int32))
    padded = np.zeros(-(-int(size) // TEXT_BLOCK) * TEXT_BLOCK, np.uint8)
    if is_primary():
        padded[: content.size] = content
    # Summed in its own type; nothing is added to what process 0 sends.
    received = multihost_utils.broadcast_one_to_all(padded)
    return bytes(np.asarray(received)[: int(size)]).decode()
