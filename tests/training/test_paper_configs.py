"""The sizes of the paper on 8 and 64 devices that are not here."""

import functools
from pathlib import Path

import pytest
from jax.sharding import AbstractMesh

from titans_eqx.config import load_config
from titans_eqx.training import TrainContext

pytestmark = pytest.mark.usefixtures("optax_promotion")

PAPER = Path(__file__).parents[2] / "configs" / "paper"
GIB = 2**30


@functools.cache
def needed(name, n_devices):
    """What a step needs on each device; a task stands in for the texts."""
    overrides = ["data.source=task", f"mesh.data={n_devices // 8}"]
    config = load_config(PAPER / f"{name}.toml", overrides)
    context = TrainContext.build(config, abstract=True)
    assert isinstance(context.mesh, AbstractMesh)
    assert context.mesh.size == n_devices
    return context.footprint


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mac_170m", "mac_760m"])
def test_eight_devices_of_forty_gib_suffice(name):
    assert needed(name, 8).total < 40 * GIB


@pytest.mark.slow
def test_sixty_four_devices_have_an_eighth_of_the_batch_each():
    eight, sixty_four = needed("mac_760m", 8), needed("mac_760m", 64)
    assert sixty_four.parameters == eight.parameters
    assert sixty_four.optimizer == eight.optimizer
    # Besides the batch there are whole weights and gradients of a layer.
    assert eight.step / 8 < sixty_four.step < eight.step / 6
