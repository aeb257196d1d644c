"""A layer is built from no config that a model would refuse."""

import jax.random as jr
import pytest

from titans_eqx.config import MemoryConfig
from titans_eqx.memory import HierarchicalMemory, NeuralMemory

LINEAR = {"rule": "delta", "depth": 1, "norm": False}
NO_MOMENTUM = {"rule": "memora", "use_momentum": False}
REFUSED = {
    "omega": ({"rule": "omega", "use_momentum": False}, "use_momentum must be true"),
    "memora": ({**NO_MOMENTUM, "decay": "none"}, 'decay must be "scalar"'),
    "delta": ({**LINEAR, "clip": 3.0}, "clip must be left out"),
    "large_chunk": ({"rule": "large_chunk", "read": "before"}, "read must be left out"),
    "titans": ({"window": 9}, "window must be left out"),
}


@pytest.mark.parametrize(("keys", "message"), REFUSED.values(), ids=REFUSED)
def test_keys_that_do_not_go_together_are_refused(keys, message):
    with pytest.raises(ValueError, match=rf"model\.memory\.{message} .*, got \S+$"):
        NeuralMemory.from_config(8, MemoryConfig(**keys), key=jr.key(0))
    config = MemoryConfig(local={"chunk_lens": [8], **keys})
    with pytest.raises(ValueError, match=rf"model\.memory\.local\.{message} .*, got"):
        HierarchicalMemory.from_config(8, config, key=jr.key(0))
