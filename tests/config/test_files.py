import re

import pytest

TASK = '[data]\nsource = "task"\n[data.task]\n'
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
    "endless depth": (
        "[model]\nn_layers = 1000000000000000000",
        "model.n_layers must be <= 1024, got 1000000000000000000",
    ),
    "endless width": (
        "[model]\nd_model = 1000000",
        "model.d_model must be <= 131072, got 1000000",
    ),
    "endless lengths": (
        f"[data]\nlengths = {[1] * 1025}",
        "data.lengths must be a list of at most 1024 numbers, each from 1 to "
        "134217728, got [1, 1,",
    ),
    "endless length": (
        "[data]\nlengths = [1000000000]",
        "each from 1 to 134217728, got [1000000000]",
    ),
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
    "pattern of numbers": (
        "[model]\npattern = [1]",
        'model.pattern must be one of "mac", "mag", "mal", "lmm", "transformer", or a '
        "list of these, got [1]",
    ),
    "no pattern": ("[model]\npattern = []", "or a list of these, got []"),
    "unknown block": (
        '[model]\npattern = ["mac", "macs"]',
        'or a list of these, got ["mac", "macs"]',
    ),
    "length of the pattern": (
        '[model]\nn_layers = 5\npattern = ["transformer", "mac"]',
        "model.n_layers must be a multiple of the length of model.pattern, got 5 and "
        "2; n_layers = 6 would do",
    ),
    "depth of the delta rule": (
        '[model.memory]\nrule = "delta"',
        'model.memory.depth must be 1 with model.memory.rule = "delta", got 2',
    ),
    "keys from before the convolution": (
        "[model.attention]\nkey_delay = 1",
        "model.attention.key_delay must be < model.attention.kernel_size, got 1 and 1",
    ),
    "steps of the delta rule": (
        '[model.memory]\nrule = "delta"\ndepth = 1\nnorm = false\n'
        "max_learning_rate = 2.0",
        "model.memory.max_learning_rate must be <= 1 (2 needs use_momentum = false, "
        'and error_after_decay = true or decay = "none") with model.memory.rule = '
        '"delta", got 2.0',
    ),
    "steps of the delta rule that mirror": (
        '[model.memory]\nrule = "delta"\ndepth = 1\nnorm = false\n'
        'use_momentum = false\ndecay = "none"\nmax_learning_rate = 3.0',
        "model.memory.max_learning_rate must be <= 2",
    ),
    "nothing that decays towards the start": (
        '[model.memory]\ndecay = "none"\ndecay_towards = "initial"',
        'model.memory.decay_towards must be "zero" with model.memory.decay = "none"',
    ),
    "persistent tokens that a local memory forgets": (
        '[model]\npattern = "mag"\n[model.memory.local]\nchunk_lens = [4]\n'
        "shard_len = 8\n[model.attention]\nn_persistent = 8\n"
        "persistent_in_memory = true",
        "model.attention.n_persistent must be less than model.memory.local.shard_len",
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
        "train.batch_size must be a multiple of mesh.data x mesh.fsdp x "
        "train.accumulate, got 16 and 3; "
        "batch_size = 18 would do",
    ),
    "parts over devices": (
        "[train]\nbatch_size = 18\naccumulate = 4\n[mesh]\ndata = 2",
        "train.batch_size must be a multiple of mesh.data x mesh.fsdp x "
        "train.accumulate, got 18 and 8; batch_size = 24 would do",
    ),
    "streams of a task": (
        '[train]\ncarry_state = true\n[data]\nsource = "task"',
        "train.carry_state reads on in a text, and the examples of data.source = ",
    ),
    "streams of several lengths": (
        "[train]\ncarry_state = true\n[data]\nlengths = [64, 128]",
        "train.carry_state needs windows of one length, got data.lengths = [64, 128]",
    ),
    "documents of a task": (
        '[data]\nsource = "task"\npacking = "documents"',
        'data.packing must be "stream" with data.source = "task", got "documents"',
    ),
    "documents in a stream": (
        "[data]\nmax_documents = 4",
        'data.max_documents has no effect with data.packing = "stream"',
    ),
    "task": (
        TASK + 'name = "mqr"',
        'data.task.name must be one of "mqar", "in_context_recall", "noisy_recall", ',
    ),
    "task of no text": (TASK + "name = 3", '"needle", "who_is_where", got 3'),
    "task as a scalar": (
        '[data]\nsource = "task"\ntask = "mqar"',
        'data.task is a section and holds keys, got "mqar"',
    ),
    "key of another task": (
        TASK + "noise = 0.2",
        'data.task.noise is not a key of data.task.name = "mqar"; its keys are name, '
        "train_examples, eval_examples, vocab_size, n_pairs, pairs_in_turn, power, "
        "filler",
    ),
    "misspelt key of a task": (
        TASK + "n_piars = 3",
        "data.task.n_piars is not a key; did you mean data.task.n_pairs?",
    ),
    "section in a task": (TASK + "needle = {}", "data.task.needle is not a key of"),
    "size of a task": (
        TASK + 'name = "needle"\nn_digits = 19',
        "my.toml: data.task.n_digits must be <= 18, got 19",
    ),
    "gap in a range": (
        TASK + 'name = "needle"\ndepth = -0.5',
        "data.task.depth must be from 0 to 1, or -1 for anywhere, got -0.5",
    ),
    "sizes of a task": (
        TASK + "vocab_size = 8\nn_pairs = 4",
        "data.task.n_pairs must be <= 3 with data.task.name = "
        '"mqar" and data.task.vocab_size = 8, got 4',
    ),
    "pairs of a turn": (
        TASK + "vocab_size = 8\nn_pairs = 2\npairs_in_turn = [2, 5]",
        "data.task.pairs_in_turn must be <= 3 with data.task.name = ",
    ),
    "pairs of another number of turns": (
        TASK + "pairs_in_turn = [2, 4]",
        "data.task.pairs_in_turn must have a number for each of data.lengths, got 2 "
        "for 0",
    ),
    "haystack": (
        TASK + 'name = "needle"\nneedle = "number"',
        'data.task.needle = "number" hides its needle in a text: name its file in '
        'data.task.haystack, or use "passkey"',
    ),
    "task without source": (
        "[data.task]\nn_pairs = 8",
        'data.task has no effect with data.source = "stdlib"; leave it out, or set '
        'data.source = "task"',
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
        '[model]\npattern = "transformer"\nd_model = 100\n'
        "[model.memory]\nn_heads = 3\n[model.attention]\nn_heads = 2",
        '[model]\npattern = "lmm"\nd_model = 33\n[model.memory]\nn_heads = 3',
        '[model]\npattern = "mag"\n[model.memory]\nchunk_len = 30',
        '[model]\nvocab_size = 10\n[data]\ntokenizer = "tokenizer.json"',
    ],
)
def test_rules_of_unused_parts_do_not_hold(load, usable):
    load(usable)
