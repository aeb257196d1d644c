"""Models on text side by side, from measurements written by hand."""

import io
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from rich.console import Console
from scipy.stats import ttest_rel

from titans_eqx.config import load_config
from titans_eqx.errors import UserError
from titans_eqx.evaluation.comparison import Run
from titans_eqx.evaluation.report import show
from titans_eqx.evaluation.row_bits import RowBits, RowPart
from titans_eqx.evaluation.suites import suite
from titans_eqx.evaluation.text_models import FAMILIES, VARIANTS, PairedComparison
from titans_eqx.models import build_model
from titans_eqx.nn.tree import n_elements
from titans_eqx.training.optimizer import trainable

CONFIGS = Path(__file__).parents[2] / "configs"
CONFIG = load_config(CONFIGS / "text" / "mag.toml")
COMPARISON = PairedComparison(VARIANTS, window=32)
# Bits per byte on average; those of far repeats are the same.
LEVELS = {
    "window": 2.0,
    "full attention": 1.8,
    "mag off": 1.9,
    "mag titans": 1.85,
    "mag delta": 1.75,
}
N_ROWS = 6


@pytest.fixture
def measured(tmp_path):
    """A function that writes measurements and returns their run."""

    def write(name, seed=0, *, level=None, text="a text", repeat_len=4):
        rng = np.random.default_rng([list(VARIANTS).index(name), seed])
        mean = 10 * (level or LEVELS[name])
        places = [(1024, "all", 0, 1024), (1024, "far repeat", 0, 1024)]
        places += [(4096, "all", *ends) for ends in ((0, 32), (32, 4096), (0, 4096))]
        parts = [
            RowPart(
                length=length,
                context=context,
                start=start,
                stop=stop,
                bits=(mean + rng.normal(0, 0.1, N_ROWS)).tolist(),
                bytes=[10] * N_ROWS,
            )
            for length, context, start, stop in places
        ]
        content = RowBits(
            text=text, repeat_len=repeat_len, window=32, parameters=123, parts=parts
        ).model_dump()
        run = Run(
            name=name, seed=seed, config=CONFIG, folder=tmp_path / f"{name}{seed}"
        )
        folder = run.folder / "evaluation" / "rows-at-800"
        folder.mkdir(parents=True)
        assert not COMPARISON.is_measured(run)
        (folder / "results.json").write_text(json.dumps(content))
        assert COMPARISON.is_measured(run)
        return run, np.array([part.bits for part in parts]) / 10

    return write


def lines(runs):
    """Of whole rows of the trained length, by variant."""
    table = COMPARISON.table(runs)
    whole = (1024, "all")
    return {
        line["variant"]: line
        for line in table
        if (line["rows"], line["context"]) == whole
    }


def test_pairs_are_seeds_where_there_are_several(measured):
    runs, bits = zip(
        *(measured(n, i) for i in range(3) for n in ("mag off", "mag delta")),
        strict=True,
    )
    off, on = ([one[0].mean() for one in bits[first::2]] for first in (0, 1))
    line = lines(runs)["mag delta"]
    expected = ttest_rel(on, off).confidence_interval(0.95)
    assert line["bits per byte"] == pytest.approx(np.mean(on))
    assert line["difference"] == pytest.approx(np.mean(on) - np.mean(off))
    assert [line["low"], line["high"]] == pytest.approx(list(expected))
    assert (line["over"], line["pairs"], line["seeds"]) == ("seeds", 3, 3)


def test_pairs_are_rows_where_there_is_one_seed(measured):
    (off, off_bits), (on, on_bits) = measured("mag off"), measured("mag delta")
    line = lines([off, on])["mag delta"]
    expected = ttest_rel(on_bits[0], off_bits[0]).confidence_interval(0.95)
    assert [line["low"], line["high"]] == pytest.approx(list(expected))
    assert (line["over"], line["pairs"], line["seeds"]) == ("rows", N_ROWS, 1)


def test_what_has_no_pair_is_not_compared(measured):
    runs = [measured("mag off", 1)[0], measured("mag delta")[0], measured("window")[0]]
    for line in lines(runs).values():
        assert (line["difference"], line["over"], line["pairs"]) == (None, None, None)
        assert line["share of ceiling"] is None


def test_the_share_is_of_what_full_attention_gains(measured):
    runs = [measured(name)[0] for name in LEVELS]
    found = lines(runs)
    gain = found["window"]["bits per byte"] - found["full attention"]["bits per byte"]
    for name in ("mag titans", "mag delta"):
        own = found["mag off"]["bits per byte"] - found[name]["bits per byte"]
        assert found[name]["share of ceiling"] == pytest.approx(own / gain)
    for name in ("window", "full attention", "mag off"):
        assert found[name]["share of ceiling"] is None
    assert found["mag off"]["reference"] is None
    assert found["full attention"]["difference"] == pytest.approx(-gain)


def test_there_is_no_share_of_a_gain_that_is_not_shown(measured):
    runs = [measured(name)[0] for name in LEVELS if name != "full attention"]
    assert lines(runs)["mag delta"]["share of ceiling"] is None
    ceiling = measured("full attention", level=LEVELS["window"])[0]
    line = lines([*runs, ceiling])["mag delta"]
    assert line["share of ceiling"] is None
    assert line["difference"] < 0


def test_different_texts_are_refused(measured):
    runs = [measured("mag off")[0], measured("mag delta", text="another")[0]]
    with pytest.raises(UserError, match="measured on different texts; remove one"):
        COMPARISON.table(runs)


def test_repeats_of_different_lengths_are_refused(measured):
    runs = [measured("mag off")[0], measured("mag delta", repeat_len=2)[0]]
    message = r"repeat has 4 tokens in .*off0.*, 2 in .*delta0.*; remove one of them"
    with pytest.raises(UserError, match=message):
        COMPARISON.table(runs)


def test_what_counts_other_repeats_as_near_is_refused(measured):
    run, _ = measured("mag off")
    wider = PairedComparison(VARIANTS, window=64)
    message = "as near up to 32 tokens, this sweep up to 64; remove it to measure again"
    with pytest.raises(UserError, match=message):
        wider.is_measured(run)


def test_the_printed_table_has_whole_rows_and_fits_80_columns(measured):
    runs = [measured(name, seed)[0] for name in LEVELS for seed in (0, 1)]
    summary = COMPARISON.summary(COMPARISON.table(runs))
    parts = ["all of 1,024", "far repeat of 1,024", "all of 4,096"]
    found = [(line["part"], line["variant"]) for line in summary]
    assert found == [(part, name) for part in parts for name in LEVELS]
    printed = io.StringIO()
    show(summary, "sweep", Console(file=printed, width=80))
    assert "…" not in printed.getvalue(), printed.getvalue()


def test_the_picture_has_the_longest_rows_by_position(measured, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: saved.append(self))
    runs = {name: measured(name)[0] for name in LEVELS}
    runs["lmm off"] = measured("lmm off", level=1.9)[0]
    COMPARISON.plot(list(runs.values()), "models", tmp_path / "picture.png")
    COMPARISON.plot([runs["window"]], "models", tmp_path / "picture.png")
    mag, lmm = saved[0].axes
    assert (mag.get_title(), lmm.get_title()) == ("mag", "lmm")
    *curves, mark = mag.lines
    assert list(mark.get_xdata()) == [1024, 1024]
    assert [list(curve.get_xdata()) for curve in curves] == [[32, 4096]] * 5
    (legend,) = saved[0].legends
    names = ["window", "full attention", "off", "titans", "delta"]
    assert [text.get_text() for text in legend.get_texts()] == names
    (alone,) = saved[1].axes
    assert alone.get_title() == "controls"


def test_every_seed_is_the_same_for_all_models():
    cases = suite("text", CONFIGS, ["train.seed=7"]).cases
    assert [case.name for case in cases] == [*VARIANTS] * 3
    for case in cases:
        config = case.load()
        assert (config.train.seed, config.data.seed) == (7 + case.seed, case.seed)
    assert len(suite("text", CONFIGS, seeds=1).cases) == len(VARIANTS)


def test_models_differ_in_what_they_are_named_for():
    changes = ["data.seq_len=512", "model.attention.window=64"]
    configs = {
        case.name: case.load()
        for case in suite("text", CONFIGS, changes, seeds=1).cases
    }
    window, full = configs["window"].model, configs["full attention"].model
    attention = window.attention.model_copy(update={"window": 512})
    assert full == window.model_copy(update={"attention": attention})
    for family in FAMILIES:
        off, on = (configs[f"{family} {which}"].model for which in ("off", "delta"))
        assert not on.memory.off
        memory = on.memory.model_copy(update={"off": True})
        assert off == on.model_copy(update={"memory": memory})
        titans = configs[f"{family} titans"].model
        assert (on.memory.rule, titans.memory.rule) == ("delta", "titans")
        assert titans == on.model_copy(update={"memory": titans.memory})
    rest = {
        name: config.model_copy(update={"model": None})
        for name, config in configs.items()
    }
    assert rest.pop("adamw").optimizer.name == "adamw"
    assert len(set(rest.values())) == 1
    base = configs["mag delta"].model_dump()
    for name, variant in VARIANTS.items():
        if variant.family == "recipe":
            own = configs[name].model_dump()
            pairs = [(own["optimizer"], base["optimizer"])]
            pairs += [
                (own["model"][part], base["model"][part])
                for part in ("memory", "attention")
            ]
            changed = [k for a, b in pairs for k in a if a[k] != b[k]]
            named = [text.partition("=")[0] for text in variant.overrides]
            assert sorted(changed) == sorted(n.rpartition(".")[2] for n in named), name


@pytest.mark.slow
def test_models_train_about_as_many_parameters():
    counts = []
    for case in suite("text", CONFIGS, seeds=1).cases:
        model = eqx.filter_eval_shape(build_model, case.load().model, key=jr.key(0))
        zeros = jax.tree.map(
            lambda leaf: (
                jnp.zeros(leaf.shape, leaf.dtype)
                if isinstance(leaf, jax.ShapeDtypeStruct)
                else leaf
            ),
            model,
        )
        trained = eqx.filter(eqx.filter(zeros, eqx.is_array), trainable(zeros))
        counts.append(n_elements(trained))
    assert max(counts) < 1.03 * min(counts)
