"""Embeddings made elsewhere, into a store."""

import dataclasses

import noise
import numpy as np
import oracle
import pyarrow
import pyarrow.parquet
import pytest
import safetensors.numpy

from asif_jax import store
from asif_jax.jobs import importing as import_store

COUNTS = (5, 9)


def write_npy(directory, *, dtype=np.float16, columns=("image_path", "caption")):
    """Two files of each kind, as clip-retrieval leaves them; what they hold."""
    rng = np.random.default_rng(0)
    made = {"img_emb": [], "text_emb": []}
    for number, count in enumerate(COUNTS):
        for folder, d in (("img_emb", 5), ("text_emb", 3)):
            (directory / folder).mkdir(parents=True, exist_ok=True)
            rows = rng.normal(size=[count, d]).astype(dtype)
            np.save(directory / folder / f"{folder}_{number}.npy", rows)
            made[folder].append(rows)
        values = [[f"{c} {number}.{i}" for i in range(count)] for c in columns]
        table = pyarrow.table(dict(zip(columns, values, strict=True)))
        (directory / "metadata").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(table, directory / "metadata" / f"metadata_{number}.parquet")
    return {folder: np.concatenate(rows) for folder, rows in made.items()}


def new_store(path, dtype="float32"):
    encoders = {m: store.EncoderRecord(m, f"{m} 1") for m in ("image", "text")}
    return store.create(path, store.Header(encoders, {"image": 5, "text": 3}, dtype, 4))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(import_store, "_PART", 4)


def test_rows_are_unit_vectors_in_order(tmp_path):
    made = write_npy(tmp_path / "made")
    opened = new_store(tmp_path / "store")
    found = import_store.read_embedded(tmp_path / "made")
    assert import_store.import_into(opened, found, progress=False) == (14, ())
    model = store.load(tmp_path / "store")
    for modality, folder in (("image", "img_emb"), ("text", "text_emb")):
        expected = oracle.unit(made[folder].astype(np.float64))
        np.testing.assert_allclose(model.anchors.embeddings[modality], expected, atol=1e-6)
    assert model.pairs[6] == store.StoredPair("image_path 1.1", ("caption 1.1",))


@pytest.mark.parametrize("reference", ["url", "key"])
def test_other_names_of_a_reference(tmp_path, reference):
    write_npy(tmp_path / "made", columns=(reference, "caption"))
    found = import_store.read_embedded(tmp_path / "made")
    assert found.pairs(0)[0].image == f"{reference} 0.0"


def test_an_import_goes_on_where_it_stopped(tmp_path, monkeypatch):
    write_npy(tmp_path / "made")
    found = import_store.read_embedded(tmp_path / "made")
    whole = new_store(tmp_path / "whole")
    import_store.import_into(whole, found, progress=False)

    def broken(number):
        if number == 1:
            raise OSError("gone")
        return found.arrays(number)

    opened = new_store(tmp_path / "store")
    with pytest.raises(OSError, match="gone"):
        import_store.import_into(opened, dataclasses.replace(found, arrays=broken), progress=False)
    assert store.snapshot(opened).live.sum() == 4
    opened = store.open_store(tmp_path / "store")
    assert import_store.import_into(opened, found, progress=False) == (14, ())
    assert import_store.import_into(opened, found, progress=False) == (14, ())
    first, second = (store.load(tmp_path / name) for name in ("whole", "store"))
    for modality, rows in first.anchors.embeddings.items():
        np.testing.assert_array_equal(second.anchors.embeddings[modality], rows)
    assert second.pairs[:] == first.pairs[:]


def test_what_is_not_finite_or_has_no_caption_is_left_out(tmp_path):
    write_npy(tmp_path / "made", dtype=np.float32)
    path = tmp_path / "made" / "text_emb" / "text_emb_1.npy"
    rows = np.load(path)
    rows[2] = np.nan
    np.save(path, rows)
    table = pyarrow.table({"url": [f"u{i}" for i in range(5)], "caption": ["a", "", "c", "d", "e"]})
    pyarrow.parquet.write_table(table, tmp_path / "made" / "metadata" / "metadata_0.parquet")
    opened = new_store(tmp_path / "store")
    found = import_store.read_embedded(tmp_path / "made")
    added, skipped = import_store.import_into(opened, found, progress=False)
    assert added == 12
    assert [(item.path.name, item.reason) for item in skipped] == [
        ("made:1", "no caption"),
        ("made:7", "not finite"),
    ]
    assert len(store.load(tmp_path / "store").pairs) == 12


def test_files_that_do_not_fit_are_named(tmp_path):
    write_npy(tmp_path / "made")
    made = tmp_path / "made"
    opened = new_store(tmp_path / "store")
    with pytest.raises(ValueError, match="no such folder"):
        import_store.read_embedded(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no embeddings in"):
        import_store.read_embedded(tmp_path / "empty")
    np.save(made / "img_emb" / "img_emb_1.npy", np.zeros([8, 5]))
    with pytest.raises(ValueError, match=r"img_emb_1.npy is \(8, 5\), and its metadata has 9 rows"):
        import_store.read_embedded(made)
    (made / "img_emb" / "img_emb_1.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"img_emb_1.npy is not a \.npy file"):
        import_store.read_embedded(made)
    (made / "img_emb" / "img_emb_1.npy").unlink()
    with pytest.raises(ValueError, match="as many files of each kind"):
        import_store.read_embedded(made)
    other = {"image": np.ones([2, 4], np.float32), "text": np.ones([2, 3], np.float32)}
    (tmp_path / "other").mkdir()
    safetensors.numpy.save_file(other, tmp_path / "other" / "pairs-0.safetensors")
    with pytest.raises(ValueError, match=r"pairs-0.jsonl is missing"):
        import_store.read_embedded(tmp_path / "other")
    (tmp_path / "other" / "pairs-0.jsonl").write_text('{"image": "a", "captions": ["b"]}\n')
    found = import_store.read_embedded(tmp_path / "other")
    with pytest.raises(ValueError, match=r"takes embeddings of .*'image': 5"):
        import_store.import_into(opened, found, progress=False)
    (tmp_path / "other" / "pairs-0.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match="is damaged"):
        import_store.read_embedded(tmp_path / "other")


def test_a_hole_in_the_numbers_is_named(tmp_path):
    write_npy(tmp_path / "made")
    images = tmp_path / "made" / "img_emb"
    (images / "img_emb_1.npy").rename(images / "img_emb_2.npy")
    with pytest.raises(ValueError, match=r"img_emb has no file of number 1, but img_emb_2\.npy"):
        import_store.read_embedded(tmp_path / "made")
    (images / "img_emb_0.npy").rename(images / "img_emb_1.npy")
    with pytest.raises(ValueError, match=r"metadata_0\.parquet belongs to no file in .*img_emb"):
        import_store.read_embedded(tmp_path / "made")
    (images / "img_emb_2.npy").rename(images / "other_1.npy")
    with pytest.raises(ValueError, match="has the number of another file"):
        import_store.read_embedded(tmp_path / "made")


def test_another_dimension_than_that_of_the_encoder_is_refused(tmp_path):
    write_npy(tmp_path / "made")
    found = import_store.read_embedded(tmp_path / "made")
    encoders = {"image": dataclasses.replace(noise.image_encoder(), dimension=5)}
    import_store.check_dimensions(found, encoders)
    encoders["text"] = noise.text_encoder()
    message = "text embeddings of 3 dimensions, but noise of words gives 6"
    with pytest.raises(ValueError, match=message):
        import_store.check_dimensions(found, encoders)
    opened = new_store(tmp_path / "store")
    with pytest.raises(ValueError, match=message):
        import_store.import_into(opened, found, encoders, progress=False)
    with pytest.raises(ValueError, match="no embeddings of the modality 'speech'"):
        import_store.check_dimensions(found, {"speech": noise.image_encoder()})
