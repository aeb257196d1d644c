"""The Titans blocks, the backbone they form, and the language model around it."""

from titans_eqx.models.backbone import Backbone as Backbone
from titans_eqx.models.backbone import Block as Block
from titans_eqx.models.backbone import LayerStack as LayerStack
from titans_eqx.models.build import build_backbone as build_backbone
from titans_eqx.models.build import build_model as build_model
from titans_eqx.models.language_model import ModelState as ModelState
from titans_eqx.models.language_model import TitansLM as TitansLM
from titans_eqx.models.mixer import AbstractMemoryMixer as AbstractMemoryMixer
from titans_eqx.models.mixer import AbstractMixer as AbstractMixer
