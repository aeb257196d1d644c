"""Every config in the repository describes a model that can be built."""

import math
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
import pytest

from titans_eqx.config import load_config
from titans_eqx.models import build_model

CONFIGS = Path(__file__).parents[2] / "configs"
PATHS = sorted(CONFIGS.rglob("*.toml"))
# Our MAC has a memory beside the attention of every layer, where the paper's sizes are
# those of its baseline too: the deep ones come out larger than their names.
SMALLEST, LARGEST = 0.8, 1.5


def count_parameters(path: Path) -> int:
    config = load_config(path)
    model = eqx.filter_eval_shape(build_model, config.model, key=jr.key(0))
    leaves = jax.tree.leaves(model)
    return sum(math.prod(x.shape) for x in leaves if hasattr(x, "shape"))


@pytest.mark.parametrize(
    "path", PATHS, ids=lambda path: path.relative_to(CONFIGS).as_posix()
)
def test_model_can_be_built_and_is_about_as_large_as_its_name_says(path):
    n_parameters = count_parameters(path)
    named = re.search(r"_(\d+)m$", path.stem)
    if named is None:
        assert n_parameters > 0
    else:
        in_millions = n_parameters / 1e6
        assert SMALLEST < in_millions / int(named[1]) < LARGEST, in_millions
