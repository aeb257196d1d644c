"""The configuration of the devices of a run."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from titans_eqx.config.bounds import MAX_BATCH
from titans_eqx.config.section import Section


def _as_axis_size(value: int) -> int:
    if value == 0:
        raise PydanticCustomError("axis_size", "must be at least 1, or -1 for the rest")
    return value


AxisSize = Annotated[int, Field(ge=-1, le=MAX_BATCH), AfterValidator(_as_axis_size)]


class MeshConfig(Section):
    """How devices share the work: each has its own part of the batch."""

    data: AxisSize = Field(
        default=-1,
        description="devices with copies of the parameters; -1 = the rest",
    )
    fsdp: AxisSize = Field(
        default=1,
        description="devices with parts of them, gathered in use; -1 = the rest",
    )
