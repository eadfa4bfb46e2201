import collections
import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from asif_jax.encoders.weights.torch_pickle import read_state_dict

_MAGIC = 0x1950A86A20F9469CFC6C


class _Name:
    """Pickles as a reference to a name of another module."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class _Tensor:
    def __init__(self, key, size, offset, shape, strides, kind="FloatStorage"):
        self.storage = ("storage", _Name("torch", kind), key, "cpu", size, None)
        self.window = (offset, shape, strides)


class _Storage:
    def __init__(self, pid):
        self.pid = pid


class _Pickler(pickle._Pickler):
    """Writes names as GLOBAL and storages as persistent ids, as PyTorch did."""

    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, _Storage) else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, _Name):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, _Tensor):
            self.save(_Name("torch._utils", "_rebuild_tensor_v2"))
            self.save((_Storage(obj.storage), *obj.window, False, collections.OrderedDict()))
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def write(path, state, storages, magic=_MAGIC):
    with path.open("wb") as file:
        for item in (magic, 1001, {"little_endian": True}, state, list(storages)):
            _Pickler(file, protocol=2).dump(item)
        for data in storages.values():
            file.write(struct.pack("<q", data.size) + data.tobytes())
    return path


def write_zip(path, state, storages, compression=zipfile.ZIP_STORED, byteorder=b"little"):
    with zipfile.ZipFile(path, "w", compression) as archive:
        with archive.open("archive/data.pkl", "w") as file:
            _Pickler(file, protocol=2).dump(state)
        archive.writestr("archive/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data.tobytes())
    return path


both_formats = pytest.mark.parametrize("write", [write, write_zip], ids=["stream", "zip"])


@both_formats
def test_reads_windows_of_storages(tmp_path, write):
    data = np.arange(12, dtype="<f4")
    brain = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    state = collections.OrderedDict(
        whole=_Tensor("a", 12, 0, (3, 4), (4, 1)),
        transposed=_Tensor("a", 12, 0, (4, 3), (1, 4)),
        part=_Tensor("a", 12, 5, (2,), (3,)),
        scalar=_Tensor("b", 1, 0, (), (), kind="LongStorage"),
        empty=_Tensor("a", 12, 0, (0, 4), (4, 1)),
        brain=_Tensor("c", 2, 0, (2,), (1,), kind="BFloat16Storage"),
    )
    storages = {"a": data, "b": np.array([7], "<i8"), "c": brain}
    tensors = read_state_dict(write(tmp_path / "x.pth", state, storages))
    assert set(tensors) == set(state)
    np.testing.assert_array_equal(tensors["whole"], data.reshape(3, 4))
    np.testing.assert_array_equal(tensors["transposed"], data.reshape(3, 4).T)
    assert tensors["part"].tolist() == [5.0, 8.0]
    assert tensors["scalar"].shape == () and tensors["scalar"] == 7
    assert tensors["empty"].shape == (0, 4)
    assert tensors["brain"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(tensors["brain"], brain)


@both_formats
@pytest.mark.parametrize("name", [("os", "system"), ("builtins", "eval"), ("torch", "load")])
def test_refuses_anything_but_tensors(tmp_path, name, write):
    path = write(tmp_path / "x.pth", {"w": _Name(*name)}, {})
    with pytest.raises(ValueError, match=r"x\.pth.*" + r"\.".join(name)):
        read_state_dict(path)


def test_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harmed"),)

    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ValueError, match="mkdir"):
        read_state_dict(path)
    assert not (tmp_path / "harmed").exists()


@both_formats
def test_every_truncation_is_an_error(tmp_path, write):
    state = {"w": _Tensor("a", 4, 0, (2, 2), (2, 1))}
    content = write(tmp_path / "x.pth", state, {"a": np.arange(4, dtype="<f4")}).read_bytes()
    for length in range(len(content)):
        (tmp_path / "cut.pth").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.pth is not a usable checkpoint"):
            read_state_dict(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    "window",
    [(0, (3, 2), (2, 1)), (3, (2,), (1,)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (2,), (9,))],
)
@both_formats
def test_a_window_outside_its_storage_is_refused(tmp_path, window, write):
    state = {"w": _Tensor("a", 4, *window)}
    path = write(tmp_path / "x.pth", state, {"a": np.zeros(4, "<f4")})
    with pytest.raises(ValueError, match="outside its storage"):
        read_state_dict(path)


def test_other_content_is_refused(tmp_path):
    path = write(tmp_path / "x.pth", {"w": 3}, {})
    with pytest.raises(ValueError, match="other than a state dict"):
        read_state_dict(path)
    path = write(tmp_path / "x.pth", {}, {}, magic=1)
    with pytest.raises(ValueError, match="does not begin"):
        read_state_dict(path)


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(ValueError, match=r"without data\.pkl"):
        read_state_dict(path)
    state, storages = {"w": _Tensor("a", 4, 0, (4,), (1,))}, {"a": np.zeros(4, "<f4")}
    write_zip(path, state, storages, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="storage a is compressed"):
        read_state_dict(path)
    write_zip(path, state, {"a": np.zeros(3, "<f4")})
    with pytest.raises(ValueError, match="storage a is compressed or cut short"):
        read_state_dict(path)
    write_zip(path, state, storages, byteorder=b"big")
    with pytest.raises(ValueError, match="big-endian"):
        read_state_dict(path)
    write_zip(path, state, {})
    with pytest.raises(ValueError, match="data/a"):
        read_state_dict(path)
