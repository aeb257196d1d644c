import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

from titans_eqx.checkpoint.leaf_table import abstract_leaf, first_difference, leaf_table


def test_paths_shapes_and_dtypes_are_listed_and_holes_are_not():
    layer = eqx.nn.Linear(2, 3, use_bias=False, key=jr.key(0))
    tree = {"model": [layer], "key": jr.key(1), "hole": None, "half": jnp.bfloat16(1)}
    assert leaf_table(tree) == {
        "model.0.weight": {"dtype": "float32", "shape": [3, 2]},
        "key": {"dtype": "key<fry>", "shape": []},
        "half": {"dtype": "bfloat16", "shape": []},
    }


def test_abstract_trees_give_the_same_table():
    tree = {"weights": jnp.ones((2, 3)), "key": jr.key(0)}
    assert leaf_table(jax.eval_shape(lambda: tree)) == leaf_table(tree)


def test_leaf_that_is_no_array_is_refused_by_path():
    with pytest.raises(TypeError, match="model.activation must be an array, got"):
        leaf_table({"model": {"activation": jax.nn.relu}})


def test_differences_are_named_and_counted():
    found = leaf_table({"a": jnp.ones(2), "b": jnp.ones(2), "c": jnp.ones(())})
    assert first_difference(found, found) is None
    wanted = leaf_table({"a": jnp.ones((2, 1)), "c": jnp.int32(1), "d": jnp.ones(1)})
    assert first_difference(found, wanted) == (
        "a is float32[2] in what was saved, expected float32[2,1] "
        "(and 3 more differences)"
    )


def test_leaf_without_sharding_goes_to_the_first_device():
    leaf = abstract_leaf(jax.ShapeDtypeStruct((2,), jnp.float32))
    assert leaf.sharding == jax.sharding.SingleDeviceSharding(jax.devices()[0])
