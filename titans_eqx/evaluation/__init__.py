"""Evaluation: what a trained model's memory does, and what it is good for."""

from titans_eqx.evaluation.inspection import Inspection as Inspection
from titans_eqx.evaluation.inspection import inspect_text as inspect_text
from titans_eqx.evaluation.inspection import inspect_tokens as inspect_tokens
