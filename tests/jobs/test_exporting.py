"""Stores in the forms of other programs, and back."""

import json

import numpy as np
import pyarrow.parquet
import pytest
import safetensors.numpy
from PIL import Image

from asif_jax import store
from asif_jax.jobs import exporting as exchange
from asif_jax.jobs import importing as import_store

CAPTIONS = ("Ein Käfer.", "犬が走る。", "كلب يجري", 'a "quoted"\\ dog', "🐕 (end)")


def make(path, count=20, *, dtype="float32", images=None):
    """A store of random pairs, some of them removed."""
    rng = np.random.default_rng(0)
    encoders = {m: store.EncoderRecord(m, f"{m} 1") for m in ("image", "text")}
    opened = store.create(path, store.Header(encoders, {"image": 5, "text": 3}, dtype, 4))
    images = images or [f"/photos/{i}.jpg" for i in range(count)]
    pairs = [
        store.StoredPair(image, (CAPTIONS[i % 5], f"second {i}")[: 1 + i % 2])
        for i, image in enumerate(images)
    ]
    embeddings = {m: rng.normal(size=[count, d]) for m, d in opened.header.dimensions.items()}
    store.append(opened, embeddings, pairs)
    store.remove(opened, [0, 3, count - 1])
    return opened


def contents(opened):
    """Row of the live pairs -> embeddings as bytes, and the pair."""
    found = store.snapshot(opened)
    pairs = store.StoredPairs(found)
    rows = {m: np.asarray(a.read().result())[pairs.rows] for m, a in found.arrays.items()}
    return [(*(rows[m][i].tobytes() for m in sorted(rows)), pairs[i]) for i in range(len(pairs))]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(exchange, "_ROWS", 6)
    monkeypatch.setattr(import_store, "_PART", 8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("form", ["npy", "safetensors"])
def test_there_and_back_keeps_every_bit(tmp_path, form, dtype):
    opened = make(tmp_path / "store", dtype=dtype)
    exchange.export(store.snapshot(opened), tmp_path / "out", form=form, progress=False)
    found = import_store.read_embedded(tmp_path / "out")
    assert (found.size, len(found.sizes)) == (17, 3)
    again = store.create(tmp_path / "again", opened.header)
    assert import_store.import_into(again, found, progress=False) == (17, ())
    if (form, dtype) == ("npy", "bfloat16"):
        # Through float32 a unit vector in bfloat16 is normalized once more.
        pairs = zip(contents(opened), contents(again), strict=True)
        assert all(a[-1] == b[-1] for a, b in pairs)
    else:
        assert contents(again) == contents(opened)


def test_npy_is_what_clip_retrieval_reads(tmp_path):
    opened = make(tmp_path / "store")
    exchange.export(store.snapshot(opened), tmp_path / "out", form="npy", progress=False)
    names = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert names == [
        *(f"img_emb/img_emb_{i}.npy" for i in range(3)),
        *(f"metadata/metadata_{i}.parquet" for i in range(3)),
        *(f"text_emb/text_emb_{i}.npy" for i in range(3)),
    ]
    assert np.load(tmp_path / "out/img_emb/img_emb_2.npy").shape == (5, 5)
    table = pyarrow.parquet.read_table(tmp_path / "out/metadata/metadata_0.parquet")
    pairs = store.StoredPairs(store.snapshot(opened))
    assert table["image_path"].to_pylist() == [pair.image for pair in pairs[:6]]
    assert table["caption"].to_pylist() == [pair.captions[0] for pair in pairs[:6]]


def test_parquet_gets_what_utf8_can_say(tmp_path):
    opened = make(tmp_path / "store", 5, images=[f"/photos/\udcff{i}.jpg" for i in range(5)])
    exchange.export(store.snapshot(opened), tmp_path / "out", form="npy", progress=False)
    table = pyarrow.parquet.read_table(tmp_path / "out/metadata/metadata_0.parquet")
    assert table["image_path"].to_pylist() == ["/photos/?1.jpg", "/photos/?2.jpg"]


def test_an_older_version_is_exported_as_it_was(tmp_path):
    opened = make(tmp_path / "store")
    exchange.export(store.snapshot(opened, 2), tmp_path / "out", form="safetensors", progress=False)
    assert import_store.read_embedded(tmp_path / "out").size == 20


def test_a_folder_holds_the_images_and_says_which_are_missing(tmp_path):
    images = [str(tmp_path / f"{i}.png") for i in range(6)]
    for number, image in enumerate(images[:5]):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(image)
    opened = make(tmp_path / "store", 6, images=images)
    (tmp_path / "2.png").unlink()
    out = tmp_path / "out"
    skipped = exchange.export(store.snapshot(opened), out, form="folder", progress=False)
    assert [item.path.name for item in skipped] == ["2.png"]
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == [images[1], images[4]]
    assert Image.open(out / rows[1]["file_name"]).getpixel((0, 0)) == (4, 0, 0)
    assert rows[0]["captions"] == [CAPTIONS[1], "second 1"]


def test_nothing_is_left_of_an_export_that_fails(tmp_path, monkeypatch):
    opened = make(tmp_path / "store")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    with pytest.raises(OSError, match="No space"):
        exchange.export(store.snapshot(opened), tmp_path / "out", form="safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    with pytest.raises(ValueError, match="is there already"):
        exchange.export(store.snapshot(opened), tmp_path / "store", form="npy")
    with pytest.raises(ValueError, match="form must be one of npy, safetensors, folder"):
        exchange.export(store.snapshot(opened), tmp_path / "out", form="csv")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_captions_are_kept_and_npy_has_their_mean(tmp_path, dtype):
    rng = np.random.default_rng(1)
    encoders = {m: store.EncoderRecord(m, f"{m} 1") for m in ("image", "text")}
    header = store.Header(encoders, {"image": 5, "text": 3}, dtype, 4, ("text",))
    opened = store.create(tmp_path / "store", header)
    texts = rng.normal(size=[20, 3, 3])
    texts[::2, 1:] = 0
    pairs = [store.StoredPair(f"{i}.jpg", CAPTIONS[: 3 if i % 2 else 1]) for i in range(20)]
    store.append(opened, {"image": rng.normal(size=[20, 5]), "text": texts}, pairs)
    for form in ("safetensors", "npy"):
        exchange.export(store.snapshot(opened), tmp_path / form, form=form, progress=False)
    found = import_store.read_embedded(tmp_path / "safetensors")
    again = store.create(tmp_path / "again", header)
    assert import_store.import_into(again, found, progress=False) == (20, ())
    assert contents(again) == contents(opened)
    units = store.load(tmp_path / "store").anchors.embeddings["text"].astype(np.float32)
    rows = np.load(tmp_path / "npy/text_emb/text_emb_0.npy")
    expected = np.stack([units[i, : 3 if i % 2 else 1].mean(axis=0) for i in range(6)])
    np.testing.assert_allclose(
        rows, expected / np.linalg.norm(expected, axis=1)[:, None], atol=5e-3
    )
    table = pyarrow.parquet.read_table(tmp_path / "npy/metadata/metadata_0.parquet")
    assert table["captions"].to_pylist() == [list(pair.captions) for pair in pairs[:6]]
    # A store of one embedding for each pair takes the mean.
    single = store.create(tmp_path / "single", header._replace(several=()))
    import_store.import_into(single, found, progress=False)
    np.testing.assert_allclose(
        store.load(tmp_path / "single").anchors.embeddings["text"][:6].astype(np.float32),
        rows,
        atol=2e-2,
    )
