import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_print_what_they_say(capsys):
    names = {}
    for code in re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL):
        exec(compile(code, "README.md", "exec"), names)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "[0 1 2]"
    assert second.startswith("[")
    assert third == "(3, 10)"
    assert names["best_caption"]._cache_size() == 1
    assert names["found"].indices.shape == names["nearly"].indices.shape == (3, 100)


@pytest.mark.parametrize("marker", ["demo", "test"])
def test_each_set_up_is_one_command_line(marker):
    (lines,) = re.findall(rf"<!-- {marker} -->\n```sh\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(lines.splitlines()) == 1
