"""Pairs of three: an image, its captions, and recordings, by an encoder of a user's own."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import toy

from asif_jax import store
from asif_jax.data import read_set
from asif_jax.encoders import Encoder
from asif_jax.jobs import exporting, importing
from asif_jax.jobs.embedding.into_store import embed_into
from asif_jax.jobs.embedding.memory import embed_pairs
from asif_jax.model import EncoderRecord
from asif_jax.store import Header

COUNT = 28


def speech_encoder():
    """Three numbers of a small file."""

    def preprocess(paths):
        return np.stack([np.load(path) for path in paths])

    def apply(params, batch):
        return batch @ params

    params = jnp.eye(4, 3, dtype=jnp.float32)
    return Encoder(apply, params, preprocess, "speech", "toy speech", 3, "toy speech")


def encoders():
    return toy.encoders() | {"speech": speech_encoder()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, captions and recordings that say the color; one recording is missing its end."""
    directory = tmp_path_factory.mktemp("threes")
    lines = []
    for index, pair in enumerate(toy.write_pairs(directory, COUNT, captions=2)):
        color = pair.captions[0].split()[0]
        recording = pair.image.with_suffix(".npy")
        np.save(recording, np.float32([*toy.COLORS[color], index % 3]))
        names = [str(path.relative_to(directory)) for path in (pair.image, recording)]
        row = {"file_name": names[0], "speech": names[1], "captions": pair.captions}
        lines.append(json.dumps(row))
    (directory / "metadata.jsonl").write_text("\n".join(lines))
    return directory


@pytest.fixture(scope="module")
def images(folder):
    return read_set(str(folder), modalities=("speech",))


def create(where, dtype="float32"):
    made = encoders()
    records = {m: EncoderRecord(e.name, e.identity) for m, e in made.items()}
    dimensions = {m: e.dimension for m, e in made.items()}
    return store.create(where, Header(records, dimensions, dtype, 8, ("text",)))


def embed(where, images, **options):
    opened = create(where, **options)
    done = embed_into(opened, images, encoders(), batch=4, part=8, progress=False)
    return opened, done


def scores_of(model, given):
    """Every modality against every other, and what the pairs contribute to the first score."""
    sides = {m: model.represent(array, m) for m, array in given.items()}
    found = [
        np.asarray(model.score(a, b)) for m, a in sides.items() for o, b in sides.items() if m != o
    ]
    why = model.explain(sides["text"][0], sides["speech"][0])
    return found, why


@pytest.fixture(scope="module")
def queries(images):
    chosen = range(0, COUNT, 5)
    colors = [images.read(i).captions[0].split()[0] for i in chosen]
    recorded = np.float32([[*toy.COLORS[color], 1] for color in colors])
    texts = np.float32([toy.COLORS[color] for color in colors])
    return {"image": texts + 1, "text": texts, "speech": recorded[:, :3]}


def test_three_are_embedded_as_in_memory(folder, images, tmp_path):
    _, done = embed(tmp_path / "store", images)
    assert done[:3] == (COUNT, 0, ())
    model = store.load(tmp_path / "store")
    assert {m: a.shape for m, a in model.anchors.embeddings.items()} == {
        "image": (COUNT, 3),
        "text": (COUNT, 2, 3),
        "speech": (COUNT, 3),
    }
    paths = dict(model.pairs[3].items)["speech"]
    assert paths == (str(images.read(3).items["speech"]),)
    from asif_jax.data import read_folder

    pairs = read_folder(folder, modalities=("speech",)).pairs
    held = embed_pairs(pairs, encoders(), progress=False).by_modality()
    for modality, array in held.items():
        unit = array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-9)
        np.testing.assert_allclose(model.anchors.embeddings[modality], unit, atol=1e-6)


def test_search_by_speech_is_explained(images, queries, tmp_path):
    embed(tmp_path / "store", images)
    model = store.load(tmp_path / "store")
    found, why = scores_of(model, queries)
    speech = model.represent(queries["speech"], "speech")
    texts = model.represent(queries["text"], "text")
    scores = np.asarray(model.score(speech, texts))
    right = scores.argmax(axis=1)
    # White and grey have one direction.
    assert np.mean(right == np.arange(len(scores))) >= 0.8
    np.testing.assert_allclose(why.contributions.sum(), model.score(texts, speech)[0, 0], atol=1e-5)
    assert len(found) == 6


@pytest.mark.parametrize("form", ["safetensors", "npy"])
def test_there_and_back_scores_the_same(images, queries, tmp_path, form):
    opened, _ = embed(tmp_path / "store", images)
    exporting.export(store.snapshot(opened), tmp_path / "out", form=form, progress=False)
    found = importing.read_embedded(tmp_path / "out")
    assert found.several == (("text",) if form == "safetensors" else ())
    again = store.create(tmp_path / "again", opened.header._replace(several=found.several))
    importing.import_into(again, found, encoders(), progress=False)
    before, after = (store.load(tmp_path / name) for name in ("store", "again"))
    assert list(after.pairs) == list(before.pairs)
    if form == "safetensors":
        for one, other in zip(*(scores_of(m, queries)[0] for m in (before, after)), strict=True):
            np.testing.assert_array_equal(one, other)
    else:
        np.testing.assert_array_equal(
            after.anchors.embeddings["speech"], before.anchors.embeddings["speech"]
        )


def test_a_folder_of_three_is_read_again(images, queries, tmp_path):
    opened, _ = embed(tmp_path / "store", images)
    exporting.export(store.snapshot(opened), tmp_path / "out", form="folder", progress=False)
    again = read_set(str(tmp_path / "out"), modalities=("speech",))
    _, done = embed(tmp_path / "again", again)
    assert done.added == COUNT
    models = [store.load(tmp_path / name) for name in ("store", "again")]
    for one, other in zip(*(scores_of(model, queries)[0] for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_one_modality_lacks_leaves_the_pair_out(images, tmp_path):
    from dataclasses import replace

    def read(index):
        example = images.read(index)
        missing = {5: {}, 9: {"speech": tmp_path / "gone.npy"}}
        return example._replace(items=missing.get(index, example.items))

    _, done = embed(tmp_path / "store", replace(images, read=read, identity="other"))
    assert done.added == COUNT - 2
    reasons = {item.path: item.reason for item in done.skipped}
    assert reasons[images.place(5)] == "no speech"
    assert "No such file" in reasons[images.place(9)]


def test_several_items_of_a_further_modality(images, tmp_path):
    from dataclasses import replace

    def read(index):
        example = images.read(index)
        path = example.items["speech"]
        return example._replace(items={"speech": (path,) * (1 + index % 2)})

    opened = create(tmp_path / "store")
    header = opened.header._replace(several=("speech", "text"))
    opened = store.create(tmp_path / "several", header)
    embed_into(opened, replace(images, read=read), encoders(), progress=False)
    model = store.load(tmp_path / "several")
    assert model.anchors.embeddings["speech"].shape == (COUNT, 2, 3)
    assert len(dict(model.pairs[1].items)["speech"]) == 2


def test_sets_and_encoders_of_other_modalities_are_refused(folder, images, tmp_path):
    opened = create(tmp_path / "store")
    with pytest.raises(ValueError, match=r"holds the modalities .*'speech'.*encoders are of"):
        embed_into(opened, images, toy.encoders(), progress=False)
    with pytest.raises(ValueError, match="nothing of the modality 'speech'"):
        embed_into(opened, read_set(str(folder)), encoders(), progress=False)
