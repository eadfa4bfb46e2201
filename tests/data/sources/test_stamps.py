import pytest
from PIL import Image

from asif_jax.data import read_stamps


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
