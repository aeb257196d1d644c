from pathlib import Path

import pytest
from jaxtyping import TypeCheckError

from titans_eqx.config import load_config
from titans_eqx.errors import UserError
from titans_eqx.evaluation import evaluate
from titans_eqx.evaluation.suites import ABLATIONS, suite

CONFIGS = Path(__file__).parents[2] / "configs"


def test_no_name_chooses_a_measure(tmp_path):
    with pytest.raises(TypeCheckError):
        evaluate(tmp_path, "recal", None, with_picture=False)  # pyright: ignore


@pytest.mark.parametrize("name", ["recall", "needle", "ablation", "rules", "text"])
def test_every_run_of_a_suite_has_a_config_that_loads(name):
    cases = suite(name, CONFIGS).cases
    configs = [case.load() for case in cases]
    assert len({case.label for case in cases}) == len(cases)
    if name == "ablation":
        assert [case.name for case in cases] == list(ABLATIONS)
        # Two may be the same: what a recipe is configured to do is ablated too.
        assert configs[0] == load_config(CONFIGS / "ablation" / "mac.toml")


def test_ablations_set_what_they_are_named_for():
    memories = {
        case.name: load_config(case.config, case.overrides).model.memory
        for case in suite("ablation", CONFIGS).cases
    }
    off = memories["memory off"].model_dump() | {"off": False}
    assert off == memories["as configured"].model_dump()
    assert memories["memory off"].off
    assert memories["no convolution"].kernel_size == 1
    delta = memories["delta rule"]
    assert (delta.rule, delta.depth, delta.norm) == ("delta", 1, False)


def test_a_run_of_the_first_seed_has_the_name_it_always_had():
    plain = suite("recall", CONFIGS).cases
    first, second = plain[0], suite("recall", CONFIGS, seeds=2).cases[len(plain)]
    assert (first.label, second.label) == ("mac", "mac seed 1")
    assert first.load() == load_config(first.config)
    assert second.is_in(["mac"])


def test_another_suite_is_refused():
    with pytest.raises(UserError, match="no suite 'ablations'; there are recall"):
        suite("ablations", CONFIGS)
