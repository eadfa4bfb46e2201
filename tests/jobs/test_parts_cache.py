import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_jax.jobs.embedding.parts_cache import Part, compute_parts, open_parts, write_atomically


def squares(directory, count, size, *, stop_at=None, calls=None, whole=lambda items: True):
    """A job: the squares of 0..count-1."""

    def compute(parts):
        for items in parts:
            if stop_at is not None and items.start >= stop_at:
                raise KeyboardInterrupt
            if calls is not None:
                calls.append(items)
            notes = [str(item) for item in items]
            yield Part({"squares": np.square(np.asarray(items))}, notes, whole(items))

    parts = list(compute_parts(directory, count, size, compute))
    assert [item for items, part in parts for item in part.notes] == list(map(str, range(count)))
    return np.concatenate([part.arrays["squares"] for _, part in parts] or [np.zeros(0)])


def opened(cache, job="job", identity="1"):
    return open_parts(cache, job=job, identity=identity)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 9), st.integers(1, 4), st.data())
def test_an_interrupted_job_goes_on_where_it_stopped(tmp_path_factory, count, size, data):
    directory = opened(tmp_path_factory.mktemp("cache"))
    stop_at = data.draw(st.integers(0, count + 1))
    first, second, third = [], [], []
    try:
        squares(directory, count, size, stop_at=stop_at, calls=first)
    except KeyboardInterrupt:
        assert stop_at < count
    np.testing.assert_array_equal(
        squares(directory, count, size, calls=second), np.arange(count) ** 2
    )
    computed = [item for items in first + second for item in items]
    assert computed == list(range(count))
    np.testing.assert_array_equal(
        squares(directory, count, size, calls=third), np.arange(count) ** 2
    )
    assert third == []


def test_a_part_is_on_disk_before_it_is_seen(tmp_path):
    directory = opened(tmp_path)
    parts = compute_parts(
        directory, 4, 2, lambda parts: (Part({"a": np.asarray(items)}) for items in parts)
    )
    for count, _ in enumerate(parts, start=1):
        assert len(list(directory.glob("*.safetensors"))) == count
    assert not list(directory.glob(".*"))


@pytest.mark.parametrize("damage", [b"", b"nonsense", slice(0, 40), slice(0, -1)])
def test_a_damaged_part_is_computed_again(tmp_path, damage):
    directory = opened(tmp_path)
    squares(directory, 6, 2)
    path = sorted(directory.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[damage] if isinstance(damage, slice) else damage)
    calls = []
    squares(directory, 6, 2, calls=calls)
    assert calls == [range(2, 4)]


def test_a_part_that_is_not_whole_is_tried_again(tmp_path):
    directory, calls = opened(tmp_path), []
    squares(directory, 6, 2, whole=lambda items: items.start != 2)
    squares(directory, 6, 2, calls=calls)
    assert calls == [range(2, 4)]


def test_a_changed_source_is_noticed(tmp_path, caplog):
    squares(opened(tmp_path), 4, 2)
    again, calls = opened(tmp_path), []
    squares(again, 4, 2, calls=calls)
    assert (calls, caplog.text) == ([], "")
    squares(opened(tmp_path, identity="2"), 4, 2, calls=calls)
    assert calls == [range(0, 2), range(2, 4)]
    assert "job: changed since the last run" in caplog.text


def test_jobs_are_kept_apart(tmp_path):
    assert opened(tmp_path, job="a") != opened(tmp_path, job="b")
    squares(opened(tmp_path, job="a"), 4, 2)
    calls = []
    squares(opened(tmp_path, job="b"), 4, 2, calls=calls)
    assert len(calls) == 2


@pytest.mark.parametrize("about", ["", "[]", "{}", '{"format": "another"}'])
def test_a_damaged_description_starts_anew(tmp_path, about):
    squares(opened(tmp_path), 4, 2)
    (path,) = tmp_path.rglob("about.json")
    path.write_text(about)
    calls = []
    squares(opened(tmp_path), 4, 2, calls=calls)
    assert len(calls) == 2


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        opened(tmp_path / "file")


def test_a_file_is_replaced_without_litter(tmp_path):
    path = tmp_path / "file"
    for content in (b"former", b""):
        write_atomically(path, content)
        assert (path.read_bytes(), list(tmp_path.iterdir())) == (content, [path])


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_failing_write_leaves_the_former_file(tmp_path, monkeypatch, step, there):
    path = tmp_path / "file"
    if there:
        write_atomically(path, b"former")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"latter")
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [b"former"] * there
