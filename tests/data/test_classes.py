import pytest

from asif_jax.data.classes import name_classes


def test_labels_by_class(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("n02\tEnglish springer\nn01\t tench \nn03\tcassette player\n")
    assert name_classes(["n01", "n02"], path) == ("tench", "English springer")
    with pytest.raises(ValueError, match="not 'n09'"):
        name_classes(["n01", "n09"], path)
    path.write_bytes("café\nthé".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        name_classes(["n01", "n02"], path)


def test_wordnet_ids_need_names():
    with pytest.raises(ValueError, match="WordNet ids"):
        name_classes(["n01440764", "n01443537"], None)


@pytest.mark.parametrize(
    ("name", "spoken"),
    [
        ("aquarium_fish", "aquarium fish"),
        ("HerbaceousVegetation", "herbaceous vegetation"),
        ("T-shirt", "T-shirt"),
        ("Forest", "Forest"),
        ("iPod", "iPod"),
        ("_", "_"),
        ("3", "3"),
    ],
)
def test_classes_in_words(name, spoken):
    assert name_classes([name], None) == (spoken,)
