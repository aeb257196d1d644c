"""Evaluation: what a trained model's memory does, and what it is good for."""

from titans_eqx.evaluation.accuracy import AccuracySettings as AccuracySettings
from titans_eqx.evaluation.evaluate import evaluate as evaluate
from titans_eqx.evaluation.inspection import Inspection as Inspection
from titans_eqx.evaluation.inspection import inspect_text as inspect_text
from titans_eqx.evaluation.inspection import inspect_tokens as inspect_tokens
from titans_eqx.evaluation.memory_layers import (
    MemoryLayersSettings as MemoryLayersSettings,
)
from titans_eqx.evaluation.memory_use import MemoryUseSettings as MemoryUseSettings
from titans_eqx.evaluation.needle import NeedleSettings as NeedleSettings
from titans_eqx.evaluation.perplexity import PerplexitySettings as PerplexitySettings
from titans_eqx.evaluation.prequential import (
    PrequentialSettings as PrequentialSettings,
)
from titans_eqx.evaluation.recall import RecallSettings as RecallSettings
from titans_eqx.evaluation.scorer import StreamScorer as StreamScorer
