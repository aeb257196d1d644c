"""Titans: sequence models with a neural memory that learns while reading."""

from importlib.metadata import version

from titans_eqx.checkpoint.load_model import load_model as load_model
from titans_eqx.config import MemoryConfig as MemoryConfig
from titans_eqx.config import ModelConfig as ModelConfig
from titans_eqx.config import RunConfig as RunConfig
from titans_eqx.config import load_config as load_config
from titans_eqx.errors import UserError as UserError
from titans_eqx.generation import Sampling as Sampling
from titans_eqx.generation import generate as generate
from titans_eqx.generation import generate_batch as generate_batch
from titans_eqx.generation import load_session as load_session
from titans_eqx.generation import save_session as save_session
from titans_eqx.memory import NeuralMemory as NeuralMemory
from titans_eqx.memory import NeuralMemoryState as NeuralMemoryState
from titans_eqx.models import Backbone as Backbone
from titans_eqx.models import TitansLM as TitansLM
from titans_eqx.models import build_model as build_model

__version__ = version("titans_eqx")
