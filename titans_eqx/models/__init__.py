"""The Titans variants and the language model around them."""

from titans_eqx.models.mixer import AbstractMemoryMixer as AbstractMemoryMixer
from titans_eqx.models.mixer import AbstractMixer as AbstractMixer
from titans_eqx.models.mixer import Block as Block
from titans_eqx.models.language_model import ModelState as ModelState
from titans_eqx.models.language_model import TitansLM as TitansLM
from titans_eqx.models.language_model import build_model as build_model
