import dataclasses
import json
import shutil

import jax
import noise
import numpy as np
import oracle
import pytest
import stores
import toy
import two_hosts
from PIL import Image

from asif_jax import store
from asif_jax.core import anchors
from asif_jax.data import Example, ImageSet, PairList, read_set
from asif_jax.data.image_set import captioned
from asif_jax.jobs.embedding import into_store
from asif_jax.jobs.embedding.into_store import embed_into, job_identity
from asif_jax.jobs.embedding.memory import embed_pairs
from asif_jax.store import EncoderRecord, Header
from asif_jax.store.jobs import find_job, outcomes

# Three parts of 8 pairs, the last one cut short.
COUNT, PART, CHUNK = 21, 8, 4


def create(where, encoders=None, *, dtype="float32", chunk=CHUNK, several=("text",)):
    encoders = encoders or toy.encoders()
    records = {m: EncoderRecord(e.name, e.identity) for m, e in encoders.items()}
    dimensions = {m: e.dimension for m, e in encoders.items()}
    return store.create(where, Header(records, dimensions, dtype, chunk, several))


def embed(opened, images, encoders=None, *, part=PART, batch=4, **options):
    options |= {"part": part, "batch": batch, "progress": False}
    return embed_into(opened, images, encoders or toy.encoders(), **options)


def contents(opened):
    """What the live rows hold, in order."""
    return list(stores.newest(opened)[1].values())


def done(opened, images):
    """The numbers of the parts that are done."""
    job = find_job(opened, job_identity(images))
    return sorted(outcomes(opened, job)) if job else []


def spoiled(encoder, names, value=np.nan):
    """An encoder that gives something else for certain items; images are known by their color."""

    def preprocess(items):
        batch = np.array(encoder.preprocess(items))
        for index, item in enumerate(items):
            name = item if isinstance(item, str) else item.getpixel((0, 0))
            if name in names:
                batch[index] = value
        return batch

    return dataclasses.replace(encoder, preprocess=preprocess)


class Killed(BaseException):
    """Stands for a kill: nothing in the package catches it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pairs")
    toy.write_pairs(directory, COUNT)
    return directory


@pytest.fixture(scope="module")
def images(folder):
    return read_set(str(folder))


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    """What a job that nothing interrupts leaves."""
    opened = create(tmp_path_factory.mktemp("undisturbed") / "store")
    assert embed(opened, images)[:3] == (COUNT, 0, ())
    return contents(opened)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("several", [(), ("text",)])
@pytest.mark.parametrize(("captions", "part", "batch"), [(1, 8, 4), (3, 8, 32), (3, 100, 1)])
def test_a_store_holds_what_a_model_of_the_pairs_holds(
    tmp_path, dtype, captions, part, batch, several
):
    pairs = [
        # From one caption to all, which name other colors than the image has.
        pair._replace(captions=(*pair.captions, "blue", "red grey")[: 1 + index % captions])
        for index, pair in enumerate(toy.write_pairs(tmp_path / "pairs", COUNT))
    ]
    opened = create(tmp_path / "store", dtype=dtype, several=several)
    images = captioned(tmp_path / "pairs", PairList(tuple(pairs), ()))
    embed(opened, images, part=part, batch=batch)
    embedded = embed_pairs(pairs, toy.encoders(), progress=False)
    # A store of all captions holds them; one of a single embedding for each pair, their mean.
    texts = embedded.captions_by_pair() if several else embedded.caption_means()
    given = {"image": embedded.images, "text": texts}
    named = [store.StoredPair(str(pair.image.resolve()), pair.captions) for pair in pairs]
    assert contents(opened) == stores.expected_rows(given, named, dtype)
    units = [oracle.unit(embedded.captions[embedded.owners == index]) for index in range(COUNT)]
    means = oracle.unit(np.stack([of_one.mean(axis=0) for of_one in units]))
    texts = store.load(tmp_path / "store").anchors.embeddings["text"].astype("float32")
    if several:
        assert texts.shape == (COUNT, captions if captions == 1 else 3, 3)
        np.testing.assert_allclose(
            texts[1, : len(units[1])], units[1], atol=1e-6 if dtype == "float32" else 4e-3
        )
        return
    np.testing.assert_allclose(texts, means, atol=1e-6 if dtype == "float32" else 4e-3)


def test_embeddings_without_ties_come_out_too(images, tmp_path):
    encoders = noise.encoders()
    opened = create(tmp_path / "store", encoders)
    embed(opened, images, encoders)
    pairs = [
        toy.Pair(images.place(index), images.read(index).captions, "") for index in range(COUNT)
    ]
    embedded = embed_pairs(pairs, encoders, progress=False)
    expected = anchors.create(embedded.by_modality())
    found = store.load(tmp_path / "store").anchors
    for modality, array in expected.embeddings.items():
        np.testing.assert_allclose(found.embeddings[modality], array, atol=1e-6)


def test_parts_are_whole_chunks_and_jobs_begin_with_one(images, tmp_path):
    opened = create(tmp_path / "store")
    embed(opened, images, part=5)
    job = find_job(opened, job_identity(images))
    assert (job.first, job.size, job.part, job.parts) == (0, COUNT, 8, 3)
    messages = [version.message for version in store.log(opened)]
    assert messages[:3] == [f"{images.source}, part {number} of 3" for number in (3, 2, 1)]
    assert [version.added for version in store.log(opened)][:3] == [5, 8, 8]
    toy.write_pairs(tmp_path / "more", 3)
    more = read_set(str(tmp_path / "more"))
    embed(opened, more)
    assert find_job(opened, job_identity(more)).first == 24
    assert np.flatnonzero(store.snapshot(opened).live).tolist() == [*range(21), 24, 25, 26]


def test_a_second_run_does_nothing(images, undisturbed, tmp_path):
    opened = create(tmp_path / "store")
    first = embed(opened, images)
    version = store.snapshot(opened).version
    again = embed(opened, images)
    assert (first.added, first.present, first.images) == (COUNT, 0, COUNT)
    assert (again.added, again.present, again.images) == (0, COUNT, 0)
    assert store.snapshot(opened).version == version
    assert contents(opened) == undisturbed


def test_what_was_removed_stays_so(images, undisturbed, tmp_path):
    opened = create(tmp_path / "store")
    embed(opened, images)
    store.remove(opened, [3, 20])
    again = embed(opened, images)
    assert (again.added, again.present) == (0, COUNT - 2)
    assert contents(opened) == undisturbed[:3] + undisturbed[4:20]


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("landed", [False, True])
def test_a_job_killed_while_it_writes_goes_on(
    images, undisturbed, tmp_path, monkeypatch, number, landed
):
    write, opened = into_store.write_part, create(tmp_path / "store")

    def write_and_die(*arguments):
        if arguments[2] < number or landed:
            write(*arguments)
        if arguments[2] == number:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(into_store, "write_part", write_and_die)
        with pytest.raises(Killed):
            embed(opened, images)
    kept = list(range(number + landed))
    assert done(opened, images) == kept
    assert contents(opened) == undisturbed[: PART * len(kept)]
    again = embed(store.open_store(tmp_path / "store"), images)
    assert again.present == min(PART * len(kept), COUNT)
    assert again.added == again.images == COUNT - again.present
    assert contents(opened) == undisturbed


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_job_killed_while_it_embeds_goes_on(images, undisturbed, tmp_path, modality):
    opened, encoders = create(tmp_path / "store"), toy.encoders()
    encoder = encoders[modality]
    last = images.read(2 * PART - 1)
    fatal = last.captions[0] if modality == "text" else last.image.tobytes()

    def preprocess(items):
        if any((item if modality == "text" else item.tobytes()) == fatal for item in items):
            raise Killed
        return encoder.preprocess(items)

    dying = encoders | {modality: dataclasses.replace(encoder, preprocess=preprocess)}
    with pytest.raises(Killed):
        embed(opened, images, dying)
    assert done(opened, images) == [0]
    embed(opened, images)
    assert contents(opened) == undisturbed


def test_what_is_done_is_read_no_more(images, undisturbed, tmp_path):
    opened, read = create(tmp_path / "store"), []

    def dies(index):
        if index == COUNT - 1:
            raise Killed
        return images.read(index)

    def recorded(index):
        read.append(index)
        return images.read(index)

    with pytest.raises(Killed):
        embed(opened, dataclasses.replace(images, read=dies))
    assert done(opened, images) == [0, 1]
    embed(opened, dataclasses.replace(images, read=recorded))
    assert sorted(read) == list(range(2 * PART, COUNT))
    assert contents(opened) == undisturbed


def test_of_two_jobs_on_one_set_one_is_told(images, undisturbed, tmp_path, monkeypatch):
    opened, write = create(tmp_path / "store"), into_store.write_part

    def write_after_another(*arguments):
        write(*arguments)
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(into_store, "write_part", write_after_another)
        with pytest.raises(store.StoreError, match=r"another process embeds .* at the same time"):
            embed(opened, images)
    embed(opened, images)
    assert contents(opened) == undisturbed


def test_of_a_set_that_changed_only_the_new_is_embedded(folder, tmp_path):
    directory = shutil.copytree(folder, tmp_path / "pairs")
    broken, former = read_set(str(directory)), create(tmp_path / "former")
    bad = broken.place(5)
    content = bad.read_bytes()
    bad.write_bytes(content[:40])
    first = embed(former, read_set(str(directory)))
    assert (first.added, len(first.skipped)) == (COUNT - 1, 1)
    bad.write_bytes(content)
    Image.new("RGB", (4, 4), "purple").save(directory / "new.png")
    (directory / "new.txt").write_text("purple news")
    changed, read = read_set(str(directory)), []

    def recorded(index):
        read.append(changed.place(index))
        return changed.read(index)

    second = embed(former, dataclasses.replace(changed, read=recorded))
    assert (second.added, second.present, second.skipped) == (2, COUNT - 1, ())
    assert sorted(read) == sorted([bad, directory / "new.png"])
    anew = create(tmp_path / "anew")
    assert embed(anew, changed).added == COUNT + 1
    assert sorted(contents(former)) == sorted(contents(anew))


def test_images_in_the_store_are_known_wherever_they_are_found(
    folder, images, undisturbed, tmp_path
):
    opened = create(tmp_path / "store")
    cold = read_set(str(folder / "cold"))
    assert embed(opened, cold).added == cold.size
    (tmp_path / "link").symlink_to(folder)
    whole = embed(opened, read_set(str(tmp_path / "link")))
    assert (whole.added, whole.present) == (COUNT - cold.size, cold.size)
    assert embed(opened, images)[:2] == (0, COUNT)
    assert sorted(contents(opened)) == sorted(undisturbed)


def test_images_that_cannot_be_read_are_left_out_and_named(folder, undisturbed, tmp_path):
    directory, bad = shutil.copytree(folder, tmp_path / "pairs"), [0, 7, 8, 20]
    images = read_set(str(directory))
    places = [images.place(index) for index in bad]
    for place in places:
        place.write_bytes(place.read_bytes()[:50])
    (directory / "alone.png").write_bytes(places[0].read_bytes())
    images = read_set(str(directory))
    opened = create(tmp_path / "store")
    found = embed(opened, images)
    assert [item.path for item in found.skipped] == [directory / "alone.png", *places]
    assert [item.reason for item in found.skipped] == [
        "no caption file",
        *["cut short or damaged (image file is truncated)"] * 4,
    ]
    assert (found.added, found.present) == (COUNT - 4, 0)
    assert np.flatnonzero(~store.snapshot(opened).live).tolist() == bad
    rows = [row[1:] for row in contents(opened)]
    assert rows == [row[1:] for index, row in enumerate(undisturbed) if index not in bad]
    assert embed(opened, images).skipped == found.skipped


def unreadable(size, bad):
    """A set of which some images cannot be read, and the list of those that were tried."""
    tried, image = [], Image.new("RGB", (4, 4), "red")

    def read(index):
        tried.append(index)
        if index in bad:
            raise ValueError(f"place {index}: torn")
        return Example(image, captions=(f"red {index}",))

    return ImageSet("somewhere", f"{size} {bad}", size, read, lambda index: f"place {index}"), tried


@pytest.mark.parametrize(("bad", "stops"), [(12, False), (13, True)])
def test_too_many_that_cannot_be_read_stop_the_job(tmp_path, bad, stops):
    images, _ = unreadable(24, range(bad))
    opened = create(tmp_path / "store")
    if not stops:
        assert embed(opened, images).added == 12
        return
    message = (
        "13 of 24 images could not be used, more than a share of 0.5; the first: place 0: torn"
    )
    with pytest.raises(ValueError, match=message):
        embed(opened, images)
    # What was embedded so far stays, and a rerun is refused again.
    assert done(opened, images) == [0, 1]
    with pytest.raises(ValueError, match=message):
        embed(opened, images)
    assert done(opened, images) == [0, 1]


def test_a_share_may_be_named(tmp_path):
    images, _ = unreadable(20, {19})
    with pytest.raises(ValueError, match="1 of 20 images"):
        embed(create(tmp_path / "strict"), images, most_skipped=0.04)
    assert embed(create(tmp_path / "store"), images, most_skipped=0.05).added == 19


def test_a_large_set_stops_early(tmp_path):
    images, tried = unreadable(1000, range(1000))
    opened = create(tmp_path / "store")
    with pytest.raises(ValueError, match="104 of 104 images"):
        embed(opened, images, part=104, batch=8)
    assert not store.snapshot(opened).live.any()
    assert done(opened, images) == []
    assert max(tried) <= 104 + 4 * 8


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_embeddings_that_are_not_finite_are_left_out_alone(
    images, undisturbed, tmp_path, modality, value
):
    example, encoders = images.read(9), toy.encoders()
    bad = example.captions[0] if modality == "text" else example.image.getpixel((0, 0))
    encoders[modality] = spoiled(encoders[modality], {bad}, value)
    opened = create(tmp_path / "store")
    found = embed(opened, images, encoders)
    assert found.skipped == ((images.place(9), "its embedding is not finite"),)
    assert found.added == COUNT - 1
    assert contents(opened) == undisturbed[:9] + undisturbed[10:]


def test_a_set_of_classes_is_refused(tmp_path):
    for name in ("a", "b"):
        noise.write_image(tmp_path / "classes" / name / "0.png", seed=0)
    opened = create(tmp_path / "store")
    before = store.snapshot(opened).version
    with pytest.raises(ValueError, match="has no captions"):
        embed(opened, read_set(str(tmp_path / "classes")))
    assert store.snapshot(opened).version == before


def test_a_job_is_of_one_set_as_it_was():
    base = ImageSet("here", "1", 1, None, None)
    others = [
        dataclasses.replace(base, **change) for change in ({"source": "t"}, {"identity": "2"})
    ]
    identities = {job_identity(images) for images in (base, *others)}
    assert len(identities) == 3
    assert job_identity(base) == job_identity(dataclasses.replace(base))


def test_two_processes_fill_a_store_as_one_does(images, undisturbed, tmp_path):
    """Two hosts with four devices each embed together, then open the store over all devices."""
    directory = shutil.copytree(images.source, tmp_path / "pairs")
    bad = read_set(str(directory)).place(9)
    bad.write_bytes(b"")
    together, alone = create(tmp_path / "together"), create(tmp_path / "alone")
    embed(alone, read_set(str(directory)))
    two_hosts.run("two_embedders.py", tmp_path)
    assert contents(together) == contents(alone)
    on_mesh = {"mesh": jax.make_mesh((8,), ("pairs",)), "anchors_axis": "pairs"}
    expected = store.open_anchors(store.snapshot(alone), capacity=30, **on_mesh)
    assert expected.capacity == 32
    for index in range(2):
        said = json.loads((tmp_path / f"{index}.json").read_text())
        # The parts are shared: 8 and 5 pairs of one process, 8 of the other.
        assert said["images"] == [[13, 8][index], 0]
        assert said["added"] == [COUNT - 1, 0]
        assert said["present"] == [0, COUNT - 1]
        assert said["skipped"] == [[[str(bad), "not an image, or an empty file"]]] * 2
        found = np.load(tmp_path / f"{index}.npz")
        np.testing.assert_array_equal(found["live"], expected.live)
        for modality, array in expected.embeddings.items():
            np.testing.assert_array_equal(found[modality], array)
