"""Evaluation: what a trained model's memory does, and what it is good for."""

from titans_eqx.evaluation.inspection import Inspection as Inspection
from titans_eqx.evaluation.inspection import inspect_text as inspect_text
from titans_eqx.evaluation.inspection import inspect_tokens as inspect_tokens
from titans_eqx.evaluation.interval import binomial_interval as binomial_interval
from titans_eqx.evaluation.measurement import Measurement as Measurement
from titans_eqx.evaluation.measurement import measure as measure
from titans_eqx.evaluation.scoring import StreamScorer as StreamScorer
