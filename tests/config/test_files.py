import re
from pathlib import Path

import pytest

from titans_eqx.config import (
    ConfigError,
    load_config,
)

WRONG_TEXTS = {
    "unknown key": (
        "[model]\nd_modle = 3",
        "model.d_modle is not a key; did you mean model.d_model?",
    ),
    "key of another section": (
        "[model]\nsegment_len = 64",
        "model.segment_len is not a key; did you mean model.attention.segment_len?",
    ),
    "key of two other sections": (
        "[model]\nn_heads = 4",
        "model.n_heads is not a key; "
        "did you mean model.memory.n_heads or model.attention.n_heads?",
    ),
    "far from every key": ("[model]\nzzzz = 3", "model.zzzz is not a key"),
    "unknown section": (
        "[optimiser]\nbeta1 = 0.9",
        "optimiser is not a section; did you mean optimizer?",
    ),
    "misplaced section": (
        "[memory]\ndepth = 3",
        "memory is not a section; did you mean model.memory?",
    ),
    "odd name": ('"a\\nb" = 3', '"a\\nb" is not a key'),
    "section as a scalar": ("model = 3", "model is a section and holds keys, got 3"),
    "section as a list": (
        "[model]\nmemory = [1]",
        "model.memory is a section and holds keys, got [1]",
    ),
    "text for a number": (
        '[model]\nd_model = "256"',
        'model.d_model must be a whole number, got "256"',
    ),
    "real for whole": (
        "[model]\nd_model = 128.0",
        "model.d_model must be a whole number, got 128.0",
    ),
    "truth value for a number": (
        "[train]\nsteps = true",
        "train.steps must be a whole number, got true",
    ),
    "number for a truth value": (
        "[model]\ntied_embeddings = 1",
        "model.tied_embeddings must be true or false, got 1",
    ),
    "date": ("[data]\nseed = 2020-01-01", "data.seed must be a whole number, got 2020"),
    "long value is cut": (
        f'[optimizer]\nbeta1 = "{"a" * 500}"',
        f'optimizer.beta1 must be a number, got "{"a" * 56}...',
    ),
    "too small": ("[model]\nn_layers = 0", "model.n_layers must be >= 1, got 0"),
    "not above": (
        "[optimizer]\nlearning_rate = 0",
        "optimizer.learning_rate must be > 0, got 0",
    ),
    "too large": (
        "[data]\nseed = 4294967296",
        "data.seed must be <= 4294967295, got 4294967296",
    ),
    "not below": (
        "[data]\neval_fraction = 1.0",
        "data.eval_fraction must be < 1, got 1.0",
    ),
    "not a number": (
        "[optimizer]\nlearning_rate = nan",
        "optimizer.learning_rate must be a finite number, got nan",
    ),
    "infinite": (
        "[model.memory]\nclip = inf",
        "model.memory.clip must be a finite number, got inf",
    ),
    "unknown choice": (
        '[model]\ngate = "sum"',
        'model.gate must be one of "add", "mix", "multiply", got "sum"',
    ),
    "only choice": ('[data]\nsource = "web"', 'data.source must be one of "stdlib"'),
    "empty tokenizer": ('[data]\ntokenizer = ""', "data.tokenizer must not be empty"),
    "empty path": ('[data]\npath = ""', "data.path must be a file, a folder or a glob"),
    "empty paths": ("[data]\neval_path = []", "data.eval_path must be a file, a fold"),
    "path of numbers": ("[data]\npath = [1]", "or a list of these, got [1]"),
    "layers by another name": (
        '[model.memory]\nlayers = "some"',
        'model.memory.layers must be "all" or a list of layer numbers, counted from 0',
    ),
    "no layers": ("[model.memory]\nlayers = []", "a list of layer numbers"),
    "negative layer": ("[model.memory]\nlayers = [-1]", "counted from 0, got [-1]"),
    "truth value as a layer": ("[model.memory]\nlayers = [true]", "got [true]"),
    "layer twice": ("[model.memory]\nlayers = [1, 1]", "must name a layer only once"),
    "layer beyond the last": (
        "[model.memory]\nlayers = [0, 4]",
        "model.memory.layers must name layers from 0 to 3 (model.n_layers = 4), got 4",
    ),
    "memory heads": (
        "[model.memory]\nn_heads = 5",
        "model.d_model must be a multiple of model.memory.n_heads, got 128 and 5; "
        "d_model = 130 would do",
    ),
    "attention heads": (
        "[model.attention]\nn_heads = 5",
        "model.d_model must be a multiple of twice model.attention.n_heads",
    ),
    "odd attention heads": (
        "[model]\nd_model = 100\n[model.attention]\nn_heads = 4",
        "got 100 and 4; d_model = 104 would do",
    ),
    "segment": (
        "[model.memory]\nchunk_len = 30",
        "model.attention.segment_len must be a multiple of model.memory.chunk_len, "
        "got 64 and 30; segment_len = 90 would do",
    ),
    "bytes need ids": (
        "[model]\nvocab_size = 255",
        'model.vocab_size must be >= 256 with data.tokenizer = "bytes", got 255',
    ),
    "warm-up": (
        "[train]\nsteps = 49",
        "optimizer.warmup_steps must be <= train.steps, got 50 and 49",
    ),
    "batch over devices": (
        "[mesh]\ndata = 3",
        "train.batch_size must be a multiple of mesh.data, got 16 and 3; "
        "batch_size = 18 would do",
    ),
    "syntax": ("[model]\nd_model =", "not valid TOML: Invalid value (at "),
    "key twice": ("[mesh]\ndata = 1\ndata = 1", "not valid TOML: "),
    "endless number": (f"a = {'1' * 5000}", "not valid TOML: "),
    "endless nesting": (f"a = {'[' * 50000}", "not valid TOML: "),
    "other encoding": (b"\xff\xfea", "not UTF-8 text"),
}


@pytest.mark.parametrize(("text", "said"), WRONG_TEXTS.values(), ids=WRONG_TEXTS)
def test_wrong_file_is_one_line_with_file_key_value_and_rule(refusal, text, said):
    message = refusal(text)
    assert re.match(r"\S*my\.toml: ", message)
    assert said in message


def test_several_errors_are_counted(refusal):
    message = refusal("[model]\nd_model = 0\n[train]\nsteps = 0\nstep = 1")
    assert message.endswith("model.d_model must be >= 1, got 0 (and 2 more)")


@pytest.mark.parametrize(
    "usable",
    [
        '[model]\nvariant = "transformer"\nd_model = 100\n'
        "[model.memory]\nn_heads = 3\n[model.attention]\nn_heads = 2",
        '[model]\nvariant = "lmm"\nd_model = 33\n[model.memory]\nn_heads = 3',
        '[model]\nvariant = "mag"\n[model.memory]\nchunk_len = 30',
        '[model]\nvocab_size = 10\n[data]\ntokenizer = "tokenizer.json"',
    ],
)
def test_rules_of_unused_parts_do_not_hold(load, usable):
    load(usable)


def test_missing_file_names_the_nearest(tmp_path: Path):
    (tmp_path / "mac.toml").write_text("")
    with pytest.raises(ConfigError, match=r"mca\.toml: no such file; did .*/mac\.toml"):
        load_config(tmp_path / "mca.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
