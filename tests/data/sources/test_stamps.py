import pytest
from PIL import Image

from asif_jax.data import read_set, read_stamps


def test_symbols_cartoons_and_mirrors_are_left_out(tmp_path):
    names = (
        "animals/crow",
        "animals/cartoon/bear",
        "symbols/math/plus",
        "food/nut",
        "food/nut_mirror",
    )
    for name in names:
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (4, 4)).save(path)
        path.with_suffix(".txt").write_text(f"A {path.stem}.\nde.utf8=Ein Ding.\n")
    pairs, skipped = read_stamps(tmp_path)
    found = [(p.image.stem, p.captions, p.group) for p in pairs]
    assert found == [("crow", ("A crow.",), "animals"), ("nut", ("A nut.",), "food")]
    assert not skipped


def test_the_packaged_stamps(stamps):
    pairs, skipped = read_stamps(stamps)
    captions = {pair.captions[0] for pair in pairs}
    assert {"A badger.", "A classical guitar."} <= captions
    assert 400 < len(pairs) < 500
    assert not skipped


def test_missing_stamps_say_what_to_install(tmp_path):
    with pytest.raises(ValueError, match="install the package tuxpaint-stamps-default"):
        read_stamps(tmp_path / "gone")
    with pytest.raises(ValueError, match="no stamps in"):
        read_stamps(tmp_path)


def test_stamps_are_a_source(stamps):
    found, pairs = read_set("stamps:"), read_stamps().pairs
    assert (found.source, found.size) == (str(stamps.resolve()), len(pairs))
    assert found.read(0).captions == pairs[0].captions


def test_stamps_may_lie_anywhere(tmp_path):
    (tmp_path / "food").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "food" / "nut.png")
    (tmp_path / "food" / "nut.txt").write_text("A nut.\nde.utf8=Eine Nuss.\n")
    found = read_set(f"stamps:{tmp_path}", need="captions")
    assert [found.read(index).captions for index in range(found.size)] == [("A nut.",)]
    with pytest.raises(ValueError, match="install the package tuxpaint-stamps-default"):
        read_set(f"stamps:{tmp_path / 'gone'}")
