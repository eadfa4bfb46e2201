import pytest

from asif_jax.data import prompts


def test_the_general_set_is_usable_and_without_repeats():
    assert len(set(prompts.sentences(["cat"], prompts.GENERAL))) == len(prompts.GENERAL)


def test_a_file_of_templates(tmp_path):
    path = tmp_path / "templates.txt"
    path.write_text("\ufeffa {} with { and }.\n\n  {}  \n", encoding="utf-8")
    templates = prompts.read_templates(path)
    assert templates == ("a {} with { and }.", "{}")
    assert prompts.sentences(["cat"], templates) == ["a cat with { and }.", "cat"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "no template"), (b"a photo\n", "'a photo'"), ("{} é".encode("latin-1"), "not UTF-8")],
)
def test_unusable_files_are_named(tmp_path, content, reason):
    path = tmp_path / "templates.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"templates\.txt.*{reason}"):
        prompts.read_templates(path)


def test_nothing_to_say():
    with pytest.raises(ValueError, match="no labels"):
        prompts.sentences([], ["{}"])
    with pytest.raises(ValueError, match="no template"):
        prompts.sentences(["cat"], [])
