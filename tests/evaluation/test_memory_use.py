import equinox as eqx
import jax
import numpy as np
import pytest

from tests.models.small import small_config, small_model, tokens
from titans_eqx.evaluation.memory_layers import read_shares
from titans_eqx.evaluation.memory_use import without_reads, without_writes


def shares_of(model, ids):
    return eqx.filter_jit(read_shares)(ids, model, without_reads(model))


@eqx.filter_jit
def read(model, ids, state=None):
    return model(ids, state)


@pytest.mark.parametrize("pattern", ["lmm", "mac", "mag", "mal"])
def test_a_model_forgets_its_memories_and_nothing_else(pattern):
    model = small_model(small_config(pattern=pattern))
    ids = tokens(8)
    _, state = read(model, ids[:4])
    forgotten, fresh = eqx.filter_jit(model.forget)(state), model.init_state()
    assert jax.tree.structure(forgotten) == jax.tree.structure(state)
    for path, leaf in jax.tree.leaves_with_path(forgotten):
        name = jax.tree_util.keystr(path)
        is_kept = any(part in name for part in ("window", "cache", "segment_offset"))
        kept, new = (_leaf(tree, path) for tree in (state, fresh))
        np.testing.assert_array_equal(leaf, kept if is_kept else new, err_msg=name)
    if pattern == "lmm":
        logits, _ = read(model, ids[4:], forgotten)
        alone, _ = read(model, ids[4:])
        np.testing.assert_allclose(logits, alone, rtol=1e-5, atol=1e-5)


def _leaf(tree, path):
    return dict(jax.tree.leaves_with_path(tree))[path]


def test_without_writes_a_model_is_the_one_with_its_memory_off():
    config = small_config(pattern="lmm")
    off = config.model_copy(
        update={"memory": config.memory.model_copy(update={"off": True})}
    )
    ids = tokens(8)
    logits, _ = read(without_writes(small_model(config), config), ids)
    np.testing.assert_array_equal(logits, read(small_model(off), ids)[0])
    assert not np.allclose(logits, read(small_model(config), ids)[0])


def test_without_reads_nothing_comes_from_other_tokens():
    model = without_reads(small_model(small_config(pattern="lmm")))
    ids = tokens(8)
    changed = ids.at[0].set((ids[0] + 1) % 12)
    one, other = read(model, ids)[0], read(model, changed)[0]
    np.testing.assert_array_equal(one[1:], other[1:])
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize(
    "pattern", [pytest.param("mag", marks=pytest.mark.slow), ("transformer", "lmm")]
)
def test_shares_of_reads_are_those_of_the_layers_that_have_a_memory(pattern):
    model = small_model(small_config(pattern=pattern, n_layers=2))
    shares = shares_of(model, tokens(8))
    assert list(shares) == ([0, 1] if pattern == "mag" else [1])
    for share in shares.values():
        assert share.shape == (8,)
        assert np.all(share > 0)
    silent = shares_of(without_reads(model), tokens(8))
    assert not np.any(np.stack(list(silent.values())))


def test_a_read_is_measured_by_the_stream_before_it():
    model = small_model(small_config(pattern="lmm", n_layers=1))
    ids = tokens(8)
    x = model.embed(ids)
    # All that this mixer adds is its read.
    (block,) = model.backbone.unstack().stacks[0].pattern
    block = jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, block)
    added, _ = block.mixer(jax.vmap(block.mixer_norm)(x), None)
    expected = np.linalg.norm(added, axis=1) / np.linalg.norm(x, axis=1)
    (share,) = shares_of(model, ids).values()
    np.testing.assert_allclose(share, expected, rtol=1e-5)
