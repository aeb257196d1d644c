"""The memory: networks, losses and rules (the seams), and the layer built on them."""

from titans_eqx.memory.check import check_rule as check_rule
from titans_eqx.memory.decay import chunk_decay as chunk_decay
from titans_eqx.memory.delta import DeltaRule as DeltaRule
from titans_eqx.memory.heads import NeuralMemoryState as NeuralMemoryState
from titans_eqx.memory.inputs import GateSpec as GateSpec
from titans_eqx.memory.inputs import MemoryInputs as MemoryInputs
from titans_eqx.memory.layer import NeuralMemory as NeuralMemory
from titans_eqx.memory.loss import AbstractInnerLoss as AbstractInnerLoss
from titans_eqx.memory.loss import SquaredError as SquaredError
from titans_eqx.memory.losses import DotProductLoss as DotProductLoss
from titans_eqx.memory.losses import HuberLoss as HuberLoss
from titans_eqx.memory.losses import PowerLoss as PowerLoss
from titans_eqx.memory.memory import AbstractMemory as AbstractMemory
from titans_eqx.memory.memory import MemoryStats as MemoryStats
from titans_eqx.memory.net import AbstractMemoryNet as AbstractMemoryNet
from titans_eqx.memory.net import MemoryNet as MemoryNet
from titans_eqx.memory.omega import OmegaRule as OmegaRule
from titans_eqx.memory.outer_gradient import OuterGradient as OuterGradient
from titans_eqx.memory.read_only import ReadOnlyRule as ReadOnlyRule
from titans_eqx.memory.rule import AbstractRule as AbstractRule
from titans_eqx.memory.rule import AbstractRuleState as AbstractRuleState
from titans_eqx.memory.scan import scan_chunks as scan_chunks
from titans_eqx.memory.scan import scan_tokens as scan_tokens
from titans_eqx.memory.titans import TitansRule as TitansRule
