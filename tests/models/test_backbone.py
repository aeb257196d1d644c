import jax
import jax.random as jr
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from tests.models.small import small_config, small_model, tokens
from titans_eqx.models import build_model
from titans_eqx.models.build import layer_kinds
from titans_eqx.models.backbone import group_layers

GROUPS = {
    "one layer": ("a", [("a", 1)]),
    "all alike": ("aaaa", [("a", 4)]),
    "every other": ("baba", [("ba", 2)]),
    "shortest pattern of several": ("abababab", [("ab", 4)]),
    "pattern of three": ("aabaab", [("aab", 2)]),
    "no pattern: runs": ("aabbb", [("a", 2), ("b", 3)]),
    "a pattern that does not fill the depth": ("babab", [(c, 1) for c in "babab"]),
}


@pytest.mark.parametrize(("kinds", "groups"), GROUPS.values(), ids=GROUPS.keys())
def test_layers_are_grouped_by_the_shortest_pattern_or_by_runs(kinds, groups):
    names = {"a": "mac", "b": "transformer"}
    expected = [(tuple(names[c] for c in pattern), n) for pattern, n in groups]
    found = group_layers([names[c] for c in kinds])
    assert found == expected
    flat = [kind for pattern, n in found for kind in pattern * n]
    assert flat == [names[c] for c in kinds]


def test_layers_without_memory_are_the_baseline():
    config = small_config(n_layers=4, memory={"layers": [1, 3]})
    assert layer_kinds(config) == ("transformer", "mac") * 2
    assert layer_kinds(small_config(n_layers=2)) == ("mac", "mac")
    assert layer_kinds(small_config(variant="transformer")) == ("transformer",) * 2


def count_equations(jaxpr) -> int:
    """All equations of a program, those inside its loops and branches included."""
    return len(jaxpr.eqns) + sum(
        count_equations(sub)
        for equation in jaxpr.eqns
        for sub in jaxprs_in_params(equation.params)
    )


@pytest.mark.parametrize("layers", ["all", "every other"])
def test_the_traced_program_does_not_grow_with_depth(layers):
    """Neither that which builds the model nor that which runs it."""

    def size(n_layers):
        memory = {"layers": "all" if layers == "all" else [*range(1, n_layers, 2)]}
        config = small_config(n_layers=n_layers, memory=memory)

        def build_and_run(key, ids):
            return build_model(config, key=key)(ids)[0]

        traced = jax.make_jaxpr(build_and_run)(jr.key(0), tokens(4))
        return count_equations(traced.jaxpr)

    assert size(12) == size(4) > 100


def test_every_layer_has_weights_of_its_own():
    model = small_model(small_config(n_layers=3))
    (block,) = model.stacks[0].pattern
    weights = block.mixer.attention.heads.query_projection.weight
    assert weights.shape[0] == 3
    assert len(np.unique(weights[:, 0, 0])) == 3
