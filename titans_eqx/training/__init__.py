"""Training: from a config to a run folder."""

from titans_eqx.commands.compilation_cache import (
    keep_compiled_programs as keep_compiled_programs,
)
from titans_eqx.commands.huge_pages import use_huge_pages as use_huge_pages
from titans_eqx.training.loop import train as train
from titans_eqx.sharding.mesh import use_all_cpu_cores as use_all_cpu_cores
from titans_eqx.training.context import prepare as prepare
from titans_eqx.training.run_summary import describe as describe
