import hashlib
import json

import chex
import numpy as np
import pytest
import safetensors.numpy

from asif_jax import anchors, store


def model(count=4, k=2):
    rng = np.random.default_rng(count)
    embeddings = {"image": rng.normal(size=[count, 3]), "text": rng.normal(size=[count, 2])}
    pairs = [store.StoredPair(f"{i}.png", (f"Ding Nº {i} 犬",)) for i in range(count)]
    encoders = {m: store.EncoderRecord(f"{m}-encoder", f"{m} 0123") for m in embeddings}
    return store.Model(anchors.create(embeddings), tuple(pairs), encoders, k, 4.0)


def test_what_is_saved_is_loaded(tmp_path):
    store.save(tmp_path / "new" / "model", model())
    loaded = store.load(tmp_path / "new" / "model")
    assert loaded._replace(anchors=None) == model()._replace(anchors=None)
    chex.assert_trees_all_close(loaded.anchors, model().anchors, atol=1e-7)


def test_saving_again_replaces_and_leaves_no_litter(tmp_path):
    store.save(tmp_path, model())
    store.save(tmp_path, model(5))
    assert len(store.load(tmp_path).pairs) == 5
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failing_write_leaves_the_former_model(tmp_path, monkeypatch):
    store.save(tmp_path, model())

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        store.save(tmp_path, model(5))
    assert len(store.load(tmp_path).pairs) == 4
    assert len(list(tmp_path.iterdir())) == 2


def test_other_peoples_files_are_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds other files"):
        store.save(tmp_path, model())
    with pytest.raises(ValueError, match="is a file"):
        store.save(tmp_path / "thesis.tex", model())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_every_truncation_of_either_file_is_an_error(tmp_path):
    store.save(tmp_path, model())
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        for length in range(0, len(content), 7):
            path.write_bytes(content[:length])
            with pytest.raises(ValueError, match=r"damaged|cut short|not a model"):
                store.load(tmp_path)
        path.write_bytes(content)
    assert len(store.load(tmp_path).pairs) == 4


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no model\.json"):
        store.load(tmp_path)
    store.save(tmp_path, model())
    next(tmp_path.glob("anchors-*")).unlink()
    with pytest.raises(ValueError, match=r"anchors-\w+\.safetensors is missing"):
        store.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not a model"),
        ({"version": 2}, "version 2"),
        ({"k": None}, "damaged"),
        ({"k": 9}, "k = 9"),
        ({"pairs": []}, "do not hold 0 pairs"),
        ({"encoders": {}}, r"arrays are \['image', 'text'\]"),
        ({"encoders": {"image": {}}}, "damaged"),
    ],
)
def test_inconsistent_headers_are_refused(tmp_path, changes, message):
    store.save(tmp_path, model())
    header = json.loads((tmp_path / "model.json").read_bytes())
    (tmp_path / "model.json").write_text(json.dumps(header | changes))
    with pytest.raises(ValueError, match=message):
        store.load(tmp_path)


def test_non_finite_embeddings_are_refused(tmp_path):
    spoil(tmp_path, model())
    with pytest.raises(ValueError, match=r"image embeddings.*NaN or infinity in 1 of 4 rows"):
        store.load(tmp_path)


def spoil(directory, good):
    """Writes a model with a NaN and a right checksum."""
    store.save(directory, good)
    (path,) = directory.glob("anchors-*")
    arrays = {m: np.array(a) for m, a in safetensors.numpy.load_file(path).items()}
    arrays["image"][1, 0] = np.nan
    content = safetensors.numpy.save(arrays)
    path.write_bytes(content)
    header = json.loads((directory / "model.json").read_bytes())
    header["arrays"]["sha256"] = hashlib.sha256(content).hexdigest()
    (directory / "model.json").write_text(json.dumps(header))
