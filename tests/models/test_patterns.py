import equinox as eqx
import jax
import jax.random as jr
import pytest
from pydantic import ValidationError

from tests.models.small import small_config
from titans_eqx.models import build_backbone
from titans_eqx.models.build import group_blocks

GROUPS = {
    "one layer": ("a", [("a", 1)]),
    "all alike": ("aaaa", [("a", 4)]),
    "every other": ("baba", [("ba", 2)]),
    "shortest pattern of several": ("abababab", [("ab", 4)]),
    "pattern of three": ("aabaab", [("aab", 2)]),
    "no pattern: runs": ("aabbb", [("a", 2), ("b", 3)]),
    "a pattern that does not fill the depth": ("babab", [(c, 1) for c in "babab"]),
}


@pytest.mark.parametrize(("names", "groups"), GROUPS.values(), ids=GROUPS.keys())
def test_blocks_are_grouped_by_the_shortest_pattern_or_by_runs(names, groups):
    blocks = {"a": "mac", "b": "transformer"}
    expected = [(tuple(blocks[c] for c in pattern), n) for pattern, n in groups]
    found = group_blocks([blocks[c] for c in names])
    assert found == expected
    flat = [name for pattern, n in found for name in pattern * n]
    assert flat == [blocks[c] for c in names]


def names_of_mixers(config):
    backbone = eqx.filter_eval_shape(build_backbone, config, key=jr.key(0))
    return [
        type(block.mixer).__name__
        for stack in backbone.stacks
        for _ in range(jax.tree.leaves(stack)[0].shape[0])
        for block in stack.pattern
    ]


def test_a_pattern_repeats_over_the_depth():
    alternating = small_config(n_layers=4, pattern=["transformer", "mac"])
    assert names_of_mixers(alternating) == ["AttentionOnly", "MemoryAsContext"] * 2
    every = ["lmm", "mac", "mag", "mal", "transformer"]
    assert names_of_mixers(small_config(n_layers=5, pattern=every)) == [
        "LongTermMemory",
        "MemoryAsContext",
        "MemoryAsGate",
        "MemoryAsLayer",
        "AttentionOnly",
    ]
    assert names_of_mixers(small_config()) == ["MemoryAsContext"] * 2


REFUSED = {
    "a depth that the pattern does not divide": (
        {"n_layers": 3, "pattern": ["transformer", "mac"]},
        r"got 3 and 2; n_layers = 4 would do",
    ),
    "an unknown block": ({"pattern": "mamba"}, '"mac", "mag", "mal", "lmm"'),
    "an unknown block in a list": ({"pattern": ["mac", "mamba"]}, '"mac", "mag"'),
    "no block": ({"pattern": []}, '"mac", "mag"'),
}


@pytest.mark.parametrize(("changes", "match"), REFUSED.values(), ids=REFUSED.keys())
def test_patterns_that_cannot_be_built_are_refused(changes, match):
    with pytest.raises(ValidationError, match=match):
        small_config(**changes)
