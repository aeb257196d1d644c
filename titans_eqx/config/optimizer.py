"""The configuration of the optimizer."""

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
        description="per unit of learning rate; matrices only",
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
        rate = self.muon_learning_rate
        default = type(self).model_fields["muon_learning_rate"].default
        if self.name != "muon" and rate != default:
            raise combination_error(
                "optimizer.muon_learning_rate has no effect with optimizer.name = "
                f'"{self.name}"; leave it out, or set optimizer.name = "muon"',
                "optimizer.muon_learning_rate",
                "optimizer.name",
            )
        return self
