import inspect

import pytest

from asif_jax.encoders.architectures import ARCHITECTURES, Architecture, architectures_of

ROWS = [(modality, kind) for modality, table in ARCHITECTURES.items() for kind in table]


@pytest.mark.parametrize(("modality", "kind"), ROWS)
def test_every_row_loads_by_the_same_arguments(modality, kind):
    found = inspect.signature(ARCHITECTURES[modality][kind].load).parameters
    expected = list(inspect.signature(Architecture.load).parameters)[1:]
    assert list(found) == expected


def test_files_are_known_by_their_names(tmp_path):
    for name in ("efficientnet-lite0.pth", "efficientnet-lite4-0123abcd.pth"):
        (tmp_path / name).touch()
        assert list(architectures_of(tmp_path / name)) == ["image"]
    for name in ("efficientnet-lite5.pth", "efficientnet-lite.pth", "vit"):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=rf"{name} is not an encoder: .*efficientnet-lite\["):
            architectures_of(tmp_path / name)
