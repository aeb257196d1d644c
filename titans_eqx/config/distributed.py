"""Which processes make up a run, and how they find each other."""

from typing import Annotated, Final

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from titans_eqx.config.section import Section, combination_error

MAX_PROCESSES: Final = 2**16


def _as_address(value: object) -> object:
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("",) * 3
    is_port = port.isdecimal() and 0 < int(port) < 2**16
    if value != "" and not (host and colon and is_port):
        raise PydanticCustomError("address", 'must be "host:port"')
    return value


Seconds = Annotated[int, Field(ge=1, le=86_400)]


class DistributedConfig(Section):
    """The processes of a run; nothing here changes what is computed."""

    auto: bool = Field(
        default=False,
        description="find the processes by what SLURM, Open MPI, a TPU pod, ... say",
    )
    coordinator: Annotated[str, BeforeValidator(_as_address)] = Field(
        default="", description='"host:port" of process 0, the same for all processes'
    )
    num_processes: int = Field(
        default=1,
        ge=1,
        le=MAX_PROCESSES,
        description="processes in all, each with as many devices",
    )
    process_id: int = Field(
        default=0,
        ge=0,
        lt=MAX_PROCESSES,
        description="which of them this is; 0 reports and writes",
    )
    connect_timeout: Seconds = Field(
        default=300, description="seconds in which all processes must have started"
    )
    heartbeat_timeout: Seconds = Field(
        default=30, description="seconds of silence after which a process is lost"
    )

    @property
    def is_joint(self) -> bool:
        """Whether there are other processes, or may be."""
        return self.auto or self.num_processes > 1

    @model_validator(mode="after")
    def _check_processes(self) -> "DistributedConfig":
        if self.num_processes > 1 and not self.coordinator and not self.auto:
            raise combination_error(
                f"distributed.num_processes = {self.num_processes} needs "
                'distributed.coordinator = "host:port" of process 0, or '
                "distributed.auto = true",
                "distributed.num_processes",
                "distributed.coordinator",
            )
        if self.auto and self.coordinator:
            raise combination_error(
                "distributed.auto finds the coordinator itself, got "
                f'distributed.coordinator = "{self.coordinator}" too; leave one out',
                "distributed.auto",
                "distributed.coordinator",
            )
        if self.process_id >= self.num_processes and not self.auto:
            raise combination_error(
                "distributed.process_id must be below distributed.num_processes, got "
                f"{self.process_id} and {self.num_processes}",
                "distributed.process_id",
                "distributed.num_processes",
            )
        return self
