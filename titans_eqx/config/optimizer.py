"""The configuration of the optimizer."""

import json
from typing import Literal

from pydantic import Field, model_validator

from titans_eqx.config.bounds import MAX_STEPS, NonNegative, Positive, Steps
from titans_eqx.config.section import Section, combination_error


class OptimizerConfig(Section):
    """AdamW or Muon, with a warm-up and a cosine."""

    name: Literal["adamw", "muon"] = Field(
        default="adamw",
        description="muon: orthogonalised momentum for the weights of linear maps, "
        "AdamW for the rest",
    )
    learning_rate: Positive = Field(
        default=3e-3, description="largest step, reached after the warm-up"
    )
    muon_learning_rate: Positive = Field(
        default=1e-2,
        description="the same for what Muon moves (name = muon); in units of AdamW's",
    )
    warmup_steps: Steps = Field(
        default=50, description="steps of linear rise; at most train.steps"
    )
    weight_decay: float = Field(
        default=0.1,
        ge=0,
        le=1000,
        description="per unit of learning rate; matrices only, with muon not a head",
    )
    clip_norm: Positive = Field(
        default=1.0, description="largest norm of the whole gradient"
    )
    final_fraction: float = Field(
        default=0.1, ge=0, le=1, description="last learning rate over the largest"
    )
    beta1: float = Field(
        default=0.9, ge=0, lt=1, description="memory of the gradient's mean"
    )
    beta2: float = Field(
        default=0.95, ge=0, lt=1, description="memory of the gradient's square"
    )
    spike_sigmas: NonNegative = Field(
        default=0.0,
        description="skip steps so many sigmas of loss or gradient norm up; 0 = never",
    )
    spike_window: int = Field(
        default=100,
        ge=2,
        le=MAX_STEPS,
        description="steps of the mean and the sigma of a spike",
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> "OptimizerConfig":
        needs = {
            "muon_learning_rate": ("name", self.name == "muon", '"muon"'),
            "spike_window": ("spike_sigmas", self.spike_sigmas > 0, "a number > 0"),
        }
        for key, (other, is_met, wanted) in needs.items():
            default = type(self).model_fields[key].default
            if getattr(self, key) != default and not is_met:
                raise combination_error(
                    f"optimizer.{key} has no effect with optimizer.{other} = "
                    f"{json.dumps(getattr(self, other))}; leave it out, or set "
                    f"optimizer.{other} = {wanted}",
                    f"optimizer.{key}",
                    f"optimizer.{other}",
                )
        return self
