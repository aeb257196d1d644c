"""Perplexity of losses that are put in by hand."""

import math

import numpy as np

from titans_eqx.config import RunConfig
from titans_eqx.evaluation import PerplexitySettings
from titans_eqx.evaluation.perplexity import perplexity
from titans_eqx.evaluation.scorer import Scores


def test_a_loss_beyond_all_numbers_is_an_infinite_perplexity(tmp_path):
    (tmp_path / "text").write_text("a line of the text\n" * 50)
    data = {"path": str(tmp_path / "text"), "seq_len": 16, "eval_fraction": 0.2}
    config = RunConfig.model_validate({"data": data})

    def scorer(examples):
        return (Scores(np.full(16, 1e3), np.zeros(16, bool)) for _ in examples)

    *_, whole = perplexity(scorer, config, PerplexitySettings())
    assert (whole["nats"], whole["perplexity"]) == (1e3, math.inf)
