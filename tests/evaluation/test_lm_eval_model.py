"""The adapter answers what the model says, and `lm_eval` runs a local task with it."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.small import small_config, small_model
from titans_eqx.checkpoint.load_model import LoadedModel
from titans_eqx.config import RunConfig
from titans_eqx.data import ByteTokenizer
from titans_eqx.data.tokenizer import FileTokenizer

lm_eval = pytest.importorskip("lm_eval")
pytestmark = pytest.mark.filterwarnings("default")  # those of its many packages
BPE = Path(__file__).parents[2] / "configs" / "text" / "tokenizer.json"
LONG = "a long context, " * 40  # more than is read at once
PAIRS = [(LONG, "and its end"), ("2 + 2 = ", "4"), ("", "no context"), ("a", " b c")]


def model_of(vocab_size):
    # Linear: the deep memory of the small models amplifies rounding over long texts.
    memory = {"depth": 1, "norm": False}
    return small_model(small_config(vocab_size=vocab_size, memory=memory))


def adapter_of(model, tokenizer):
    from titans_eqx.evaluation.lm_eval_model import LMEvalModel

    loaded = LoadedModel(
        model=model, config=RunConfig(), tokenizer=tokenizer, step=1, refused=()
    )
    return LMEvalModel(loaded, batch_size=2)


@pytest.fixture(scope="module")
def model():
    return model_of(256)


@pytest.fixture(scope="module")
def adapter(model):
    return adapter_of(model, ByteTokenizer())


def instance(kind, *arguments):
    from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def oracle(model, context, continuation):
    """Log probability and greediness from one pass over the whole text."""
    tokens = np.frombuffer((context or "\0").encode() + continuation.encode(), np.uint8)
    logits = model(jnp.asarray(tokens[:-1], jnp.int32))[0]
    log_probabilities = np.asarray(jax.nn.log_softmax(logits))
    n = len(continuation.encode())
    rows, targets = log_probabilities[-n:], tokens[-n:]
    picked = rows[np.arange(n), targets]
    return picked.sum(), bool(np.all(rows.argmax(axis=1) == targets))


def test_loglikelihoods_are_those_of_one_pass(model, adapter):
    requests = [instance("loglikelihood", *pair) for pair in PAIRS]
    for pair, (found, is_greedy) in zip(
        PAIRS, adapter.loglikelihood(requests), strict=True
    ):
        # The space at the end of a context counts as the continuation's.
        stem = pair[0].rstrip()
        expected, greedy = oracle(model, stem, pair[0][len(stem) :] + pair[1])
        assert found == pytest.approx(expected, rel=1e-4)
        assert is_greedy == greedy


def test_tokens_that_a_continuation_changes_are_scored_with_it():
    pytest.importorskip("tokenizers")
    tokenizer = FileTokenizer(BPE)
    model = model_of(tokenizer.vocab_size)
    pairs = [("retur", "n"), ("sel", "f")]
    requests = [instance("loglikelihood", *pair) for pair in pairs]
    # re|tur becomes re|turn, and se|l becomes self, before which nothing is read.
    tokens = [
        tokenizer.encode(b"return"),
        [tokenizer.separator, *tokenizer.encode(b"self")],
    ]
    for ids, (found, is_greedy) in zip(
        tokens, adapter_of(model, tokenizer).loglikelihood(requests), strict=True
    ):
        assert len(ids) == 2
        logits = model(jnp.asarray(ids[:-1], jnp.int32))[0][-1]
        assert found == pytest.approx(
            float(jax.nn.log_softmax(logits)[ids[-1]]), rel=1e-4
        )
        assert is_greedy == (int(logits.argmax()) == ids[-1])


def test_a_whole_text_is_scored_rolling(model, adapter):
    requests = [instance("loglikelihood_rolling", text) for text in (LONG, "short")]
    found = adapter.loglikelihood_rolling(requests)
    expected = [oracle(model, "", text)[0] for text in (LONG, "short")]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_generation_is_greedy_and_ends_before_a_stop(model, adapter):
    def run(**options):
        (text,) = adapter.generate_until([instance("generate_until", "ab", options)])
        return text

    state, tokens = None, [97, 98]
    for _ in range(20):
        logits, state = model(jnp.asarray(tokens[-1:] if state else tokens), state)
        tokens.append(int(logits[-1].argmax()))
    generated = bytes(tokens[2:])
    expected = ByteTokenizer().decode(list(generated.split(b"\0")[0]))
    text = run(until=[], max_gen_toks=20)
    assert text == expected
    end = expected[1]
    assert run(until=[end], max_gen_toks=20) == expected[: expected.index(end)]


def test_a_local_task_runs(model, adapter, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    documents = [
        {"question": f"q{i}", "choices": ["x", "yes", "zz"], "gold": i % 3}
        for i in range(6)
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in documents))
    task = {
        "task": "local",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "target_delimiter": " ",
        "metric_list": [{"metric": "acc"}],
    }
    results = lm_eval.simple_evaluate(adapter, tasks=[task], bootstrap_iters=0)
    best = [
        np.argmax([oracle(model, one["question"], f" {c}")[0] for c in one["choices"]])
        for one in documents
    ]
    right = np.mean([b == one["gold"] for b, one in zip(best, documents, strict=True)])
    assert results["results"]["local"]["acc,none"] == pytest.approx(right)
