import json
import re
import weakref

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from asif_jax.encoders.weights import published as weights
from asif_jax.encoders.weights.tensors import Tensors


class Toy(nnx.Module):
    def __init__(self, dtype=jnp.float32, *, rngs):
        self.linear = nnx.Linear(2, 3, param_dtype=dtype, rngs=rngs)
        self.conv = nnx.Conv(3, 4, (2, 2), param_dtype=dtype, rngs=rngs)


def checkpoint_name(path):
    return ".".join([*path[:-1], "weight" if path[-1] == "kernel" else path[-1]])


def toy_tensors(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {
        "linear.weight": (3, 2),
        "linear.bias": (3,),
        "conv.weight": (4, 3, 2, 2),
        "conv.bias": (4,),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def put(tensors, unused=(), dtype=jnp.float32, source="x"):
    return weights.with_weights(
        lambda rngs: Toy(dtype, rngs=rngs), tensors, checkpoint_name, source=source, unused=unused
    )


def write_sharded(directory, tensors):
    """Every tensor in a file of its own."""
    names = {name: f"model-{index}.safetensors" for index, name in enumerate(tensors)}
    for name, file in names.items():
        safetensors.numpy.save_file({name: tensors[name]}, directory / file)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


def test_tensors_land_in_their_places():
    tensors = toy_tensors()
    model = put(tensors)
    np.testing.assert_array_equal(model.linear.kernel.get_value(), tensors["linear.weight"].T)
    np.testing.assert_array_equal(model.linear.bias.get_value(), tensors["linear.bias"])
    kernel = model.conv.kernel.get_value()
    for h, w, i, o in np.ndindex(2, 2, 3, 4):
        assert kernel[h, w, i, o] == tensors["conv.weight"][o, i, h, w]


def test_half_precision_converts_both_ways():
    tensors = toy_tensors()
    model = put(tensors, dtype=jnp.bfloat16)
    assert model.linear.kernel.get_value().dtype == jnp.bfloat16
    expected = tensors["linear.weight"].T.astype(jnp.bfloat16)
    np.testing.assert_array_equal(model.linear.kernel.get_value(), expected)
    halves = {name: array.astype(np.float16) for name, array in tensors.items()}
    model = put(halves)
    assert model.linear.kernel.get_value().dtype == jnp.float32
    np.testing.assert_array_equal(model.linear.kernel.get_value(), halves["linear.weight"].T)


def test_missing_tensors_are_named():
    tensors = toy_tensors()
    del tensors["conv.weight"]
    with pytest.raises(ValueError, match=r"x lacks the tensor conv\.weight$"):
        put(tensors)
    with pytest.raises(ValueError, match=r"conv\.bias, conv\.weight, linear\.bias and 1 more"):
        put({})


def test_unexpected_tensors_are_named_unless_they_are_known():
    tensors = toy_tensors() | {"pooler.dense.weight": np.zeros(1), "pooled": np.zeros(1)}
    with pytest.raises(ValueError, match=r"x holds the tensor pooled, which the arch"):
        put(tensors, unused=["pooler.*"])
    put(tensors, unused=["pooler.*", "pooled"])
    put(tensors, unused=None)


def test_misshaped_tensors_are_named():
    tensors = toy_tensors() | {"linear.weight": np.zeros([2, 3])}
    with pytest.raises(ValueError, match=r"linear\.weight .*\(3, 2\), which should be \(2, 3\)"):
        put(tensors)


def test_tensors_are_read_one_by_one_and_only_those_needed():
    content, read = toy_tensors() | {"head": np.zeros(9)}, []
    readers = {name: lambda name=name: (read.append(name), content[name])[1] for name in content}
    put(Tensors(readers), unused=["head"])
    assert sorted(read) == sorted(set(content) - {"head"})


def test_no_two_tensors_are_held_while_reading():
    content, held = toy_tensors(), []

    def read(name):
        assert not any(reference() is not None for reference in held)
        array = content[name].copy()
        held.append(weakref.ref(array))
        return array

    # Another type than the source's, so that nothing can be passed on without a copy.
    put(Tensors({n: lambda n=n: read(n) for n in content}), dtype=jnp.bfloat16)
    assert len(held) == len(content)


@pytest.mark.parametrize("sharded", [False, True])
def test_safetensors_are_read_from_a_directory(tmp_path, sharded):
    tensors = toy_tensors()
    if sharded:
        write_sharded(tmp_path, tensors)
    else:
        safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    read = weights.read_tensors(tmp_path)
    assert set(read) == set(tensors)
    assert all(np.array_equal(read[name], tensors[name]) for name in tensors)


def test_safetensors_come_before_pickles(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"no pickle")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is not a usable checkpoint"):
        weights.read_tensors(tmp_path)
    index = write_sharded(tmp_path, toy_tensors())
    assert set(weights.read_tensors(tmp_path)) == set(toy_tensors())
    index.unlink()
    safetensors.numpy.save_file({"w": np.zeros(1)}, tmp_path / "model.safetensors")
    assert set(weights.read_tensors(tmp_path)) == {"w"}


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no weights: neither model\.safetensors nor pyt"):
        weights.read_tensors(tmp_path)
    with pytest.raises(ValueError, match="nothing is missing"):
        weights.read_tensors(tmp_path / "nothing")
    write_sharded(tmp_path, toy_tensors())
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-2\.safetensors is missing, which model\.safe"):
        weights.read_tensors(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index_is_named(tmp_path, content):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{index} is no index of weights")):
        weights.read_tensors(tmp_path)


def test_an_index_may_not_point_elsewhere(tmp_path):
    safetensors.numpy.save_file({"w": np.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "sub").mkdir()
    index = tmp_path / "sub" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "../model.safetensors"}}))
    with pytest.raises(ValueError, match="is missing, which model"):
        weights.read_tensors(tmp_path / "sub")


def test_every_truncation_of_safetensors_is_an_error(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"w": np.arange(4.0)}, path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"model\.safetensors is cut short or damaged"):
            weights.read_tensors(tmp_path)


def test_hashes_follow_the_content(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"abc")
    two.write_bytes(b"d")
    # sha256 of "abc", from FIPS 180-2.
    assert weights.hash_files(one) == "ba7816bf8f01cfea"
    assert weights.hash_files(one, two) not in {weights.hash_files(one), weights.hash_files(two)}
