"""Training: from a config to a run folder."""

from titans_eqx.training.context import TrainContext as TrainContext
from titans_eqx.training.loop import train as train
from titans_eqx.training.run_summary import run_summary as run_summary
