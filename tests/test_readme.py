import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_example_prints_what_it_says(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "[0 1 2]"
    assert second.startswith("[")
    assert names["best_caption"]._cache_size() == 1


@pytest.mark.parametrize("marker", ["demo", "test"])
def test_each_set_up_is_one_command_line(marker):
    (lines,) = re.findall(rf"<!-- {marker} -->\n```sh\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(lines.splitlines()) == 1
