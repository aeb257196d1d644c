"""Mixed precision: the weights of a model as bfloat16, where that loses nothing."""

from typing import Any, Final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from titans_eqx.memory.gates import Gates
from titans_eqx.memory.heads import MemoryHeads
from titans_eqx.models import TitansLM

WIDE: Final = (Gates, eqx.nn.RMSNorm)  # few numbers, and they compute in float32


def in_mixed_precision(model: TitansLM) -> TitansLM:
    """A model that computes in bfloat16; done inside a loss, its gradient is float32.

    As they are stay the embedding, norms, gates, and all that a memory is made of but
    its projections. The memory itself, softmax and norms compute in float32 by
    themselves.
    """
    return eqx.tree_at(lambda m: m.embedding, _narrow(model), model.embedding)


def _narrow(tree: PyTree) -> PyTree:
    def narrow(node: Any) -> Any:
        if isinstance(node, MemoryHeads):
            projections = _narrow(node.projections)
            return eqx.tree_at(lambda heads: heads.projections, node, projections)
        if isinstance(node, WIDE) or not eqx.is_inexact_array(node):
            return node
        return node.astype(jnp.bfloat16)

    return jax.tree.map(
        narrow, tree, is_leaf=lambda node: isinstance(node, (MemoryHeads, *WIDE))
    )
