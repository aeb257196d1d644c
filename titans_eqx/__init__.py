"""Titans: sequence models with a neural memory that learns while reading."""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
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
    from titans_eqx.nn import document_starts as document_starts

__version__ = version("titans_eqx")

# Imported at first use: jax takes seconds, and commands have something to say before.
_NAMES: Final = {
    "titans_eqx.checkpoint.load_model": ("load_model",),
    "titans_eqx.config": ("MemoryConfig", "ModelConfig", "RunConfig", "load_config"),
    "titans_eqx.errors": ("UserError",),
    "titans_eqx.generation": (
        "Sampling",
        "generate",
        "generate_batch",
        "load_session",
        "save_session",
    ),
    "titans_eqx.memory": ("NeuralMemory", "NeuralMemoryState"),
    "titans_eqx.models": ("Backbone", "TitansLM", "build_model"),
    "titans_eqx.nn": ("document_starts",),
}
_MODULES: Final = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


_PARTS: Final = {
    *("attention", "checkpoint", "config", "data", "errors", "evaluation"),
    *("generation", "memory", "models", "nn", "sharding", "training"),
}


def __getattr__(name: str) -> Any:
    """Import a public name, or a part of the package."""
    if name in _PARTS:
        return importlib.import_module(f"titans_eqx.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """All names, also those that are not imported yet."""
    return [*globals(), *__all__]
