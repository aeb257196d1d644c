"""One case of the benchmark: what is measured, and at which sizes.

A case is plain data, so that it can be sent to the process that measures it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydantic import Field

from titans_eqx.config import RunConfig, load_config
from titans_eqx.config.section import Section

SETTING: Final = Path(__file__).with_name("setting.toml")

Kind: TypeAlias = Literal[
    "memory_forward",  # one memory layer on a batch
    "memory_gradient",  # the same and its gradient
    "train",  # a whole training step
    "forward",  # a model on one sequence, with all logits
    "prefill",  # the same in constant memory, with the last logits only
    "decode",  # drawing tokens one by one after a prompt
    "compile",  # making the program of a training step
]


class Case(Section):
    """What one child process measures.

    The length of the sequences is `config.data.seq_len` and their number
    `config.train.batch_size`; the other sections mean what they mean in training.
    """

    kind: Kind = Field(description="what is measured")
    config: RunConfig = Field(description="sizes and options")
    n_drawn: int = Field(default=1, ge=1, description="tokens drawn in a run (decode)")
    product_side: int = Field(
        default=2048, ge=1, description="rows of the matrices of a roofline's product"
    )

    @property
    def length(self) -> int:
        """Tokens in a sequence."""
        return self.config.data.seq_len


def read_setting(overrides: Iterable[str]) -> RunConfig:
    """The setting of the benchmark.

    Args:
        overrides: Texts like `model.d_model=128`; the last one that sets a key wins.

    Raises:
        ConfigError: If a key or value is refused.
    """
    return load_config(SETTING, overrides)
