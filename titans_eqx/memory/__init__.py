"""The memory: the update rule in its two forms, and the layer built on it."""

from titans_eqx.memory.outer_gradient import GradientBoundary as GradientBoundary
from titans_eqx.memory.scan import scan_chunks as scan_chunks
from titans_eqx.memory.net import AbstractMemoryNet as AbstractMemoryNet
from titans_eqx.memory.net import MemoryNet as MemoryNet
from titans_eqx.memory.layer import NeuralMemory as NeuralMemory
from titans_eqx.memory.layer import NeuralMemoryState as NeuralMemoryState
from titans_eqx.memory.stats import MemoryFigures as MemoryFigures
from titans_eqx.memory.stats import observe as observe
from titans_eqx.memory.recurrent import scan_tokens as scan_tokens
from titans_eqx.memory.rule import UpdateRule as UpdateRule
from titans_eqx.memory.state import MemoryInputs as MemoryInputs
from titans_eqx.memory.state import MemoryState as MemoryState
