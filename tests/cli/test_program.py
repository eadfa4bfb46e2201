"""The command as a program among others: its help, its streams, its exit codes."""

import importlib.metadata
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import noise
import pytest
from command import COMMAND, fail, run, succeed

from asif_jax import store
from asif_jax.cli import printing, program
from asif_jax.store import StoredPair

README = Path(__file__).parents[2] / "README.md"
OBEYED = "\x1b[31mred\x1b[0m\x07\x9b31m\u202e\ncaption"


def environment(**changed):
    return {**os.environ, "XLA_FLAGS": "", **changed}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Pairs whose captions and images say what a terminal would obey."""
    directory = tmp_path_factory.mktemp("models") / "model"
    made = noise.model(pairs=3)
    pairs = tuple(StoredPair(f"/{OBEYED}/犬\udcff{i}.png", (OBEYED,)) for i in range(3))
    store.save(directory, made._replace(pairs=pairs, k=2))
    return directory


def test_commands_that_are_none():
    assert fail("clasify") == "asif-jax: no command 'clasify'; did you mean classify?"
    assert fail("Embed").endswith("did you mean embed?")
    assert fail("--json").startswith("asif-jax: no command '--json'; there are demo, embed")


def test_version():
    version = importlib.metadata.version("asif-jax")
    assert succeed("--version").stdout == f"asif-jax {version}\n"


def test_python_runs_the_package():
    result = run("--version", command=[sys.executable, "-m", "asif_jax"])
    assert result.stdout.startswith("asif-jax ")


@pytest.mark.parametrize("verb", program._COMMANDS)
def test_help_shows_examples_and_json(verb):
    text = succeed(verb, "--help").stdout
    _, *examples = re.findall(rf"asif-jax {verb}\b.*", text)
    assert len(examples) >= 2
    assert "--json" in text
    assert f"  {verb} " in succeed("--help").stdout
    # What is not given is never called None.
    assert "None" not in text


@pytest.mark.parametrize("verb", program._COMMANDS)
def test_examples_can_be_parsed(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for example in program._COMMANDS[verb].examples:
        name, first, *rest = re.findall(r'"[^"]*"|\S+', example)
        assert (name, first) == ("asif-jax", verb)
        program.parse(program._COMMANDS[verb], verb, [word.strip('"') for word in rest])


def test_a_missing_model_is_noticed_before_encoders_load(tmp_path):
    loading = "import asif_jax.encoders as e; e.load = None; from asif_jax.cli import main; main()"
    (tmp_path / "a.png").touch()
    for verb, *words in (
        ("classify", "a.png", "--labels", "x"),
        ("search", "a dog"),
        ("explain", "a.png", "a dog"),
        ("eval", "a"),
        ("add", "a"),
    ):
        words = [tmp_path / word if word == "a.png" else word for word in words]
        line = fail(verb, tmp_path / "gone", *words, command=[sys.executable, "-c", loading])
        assert "is not a store" in line


def test_files_that_are_missing_are_named(model, tmp_path):
    labels = tmp_path / "labels.txt"
    line = fail("classify", model, tmp_path, "--labels-file", labels)
    assert line == f"asif-jax: {labels}: No such file or directory"
    labels.write_text("\n \n")
    assert f"{labels} holds no labels" in fail("classify", model, tmp_path, "--labels-file", labels)
    labels.write_bytes(b"\xff")
    assert f"{labels} is not UTF-8" in fail("classify", model, tmp_path, "--labels-file", labels)


def test_what_a_terminal_would_obey_is_shown(model):
    output = succeed("remove", model, "--rows", 1, "--dry-run").stdout
    assert r"\x1b[31mred\x1b[0m\x07\x9b31m\u202e\ncaption" in output
    assert not set(OBEYED) & set(output) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert "\\udcff1.png" in output
    text = succeed("remove", model, "--captions", "red", "--dry-run", "--json").stdout
    assert json.loads(text)["rows"] == [0, 1, 2]
    line = fail("search", f"{model}\x1b[31m", "a dog")
    assert "\\x1b[31m" in line and "\x1b" not in line


def test_json_keeps_what_it_says(capsys):
    said = {"caption": OBEYED, "file": "犬\udcff"}
    printing.print_json(said)
    text = capsys.readouterr().out
    assert json.loads(text) == said
    assert "犬" in text
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e"}


def test_what_an_encoding_lacks_is_escaped(model):
    poor = environment(PYTHONIOENCODING="ascii")
    for options in ([], ["--json"]):
        result = subprocess.run(
            [*COMMAND, "name", str(model), "Wörter犬", "--version", "2", *options],
            capture_output=True,
            env=poor,
        )
        assert result.returncode == 0, result.stderr
        text = result.stdout.decode("ascii")
        name = json.loads(text)["name"] if options else text
        assert ("Wörter犬" if options else "W\\xf6rter\\u72ac") in name
    assert store.log(store.open_store(model))[2].names == ("Wörter犬",)


def test_a_closed_pipe_ends_quietly(model):
    for _ in range(20):
        store.name_version(store.open_store(model), 2, "a" * 4000)
    for words in (["log", model], ["log", model, "--json"], ["embed", "--help"]):
        shell = f"{subprocess.list2cmdline([*map(str, [*COMMAND[:2]])])} '{COMMAND[2]}'"
        line = " ".join(f"'{word}'" for word in words)
        result = subprocess.run(
            ["bash", "-c", f"{shell} {line} | true; echo ${{PIPESTATUS[0]}}"],
            capture_output=True,
            text=True,
            env=environment(),
        )
        assert result.stderr == ""
        assert result.stdout in ("141\n", "0\n")


def test_json_of_every_command_is_for_programs(model, tmp_path):
    def keys(value):
        if isinstance(value, dict):
            yield from value
            value = list(value.values())
        for item in value if isinstance(value, list) else ():
            yield from keys(item)

    for verb, *words in (
        ("info",),
        ("log",),
        ("diff", 1),
        ("remove", "--rows", 0, "--dry-run"),
        ("tune", "--k", 1, "--p", 2),
        ("name", "first", "--version", 1),
        ("export", "-o", tmp_path / "npy"),
        ("compact", "--prove"),
    ):
        found = json.loads(succeed(verb, model, *words, "--json").stdout)
        for key in keys(found):
            assert re.fullmatch("[a-z0-9_]+", key), (verb, key)


def test_the_first_line_is_said_to_a_terminal_alone(model):
    def said(*, terminal):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*COMMAND, "tune", str(model), "--k", "1", "--p", "2", "--json"],
            stdout=subprocess.PIPE,
            stderr=theirs if terminal else subprocess.PIPE,
            env=environment(),
        )
        output, errors = process.communicate()
        os.close(theirs)
        if terminal:
            errors = os.read(ours, 10_000)
        os.close(ours)
        assert process.returncode == 0
        json.loads(output)
        return errors.decode()

    assert said(terminal=True).startswith(f"opening {model} …")
    assert list(Path(os.environ["XDG_CACHE_HOME"], "asif-jax", "compiled").iterdir())
    assert said(terminal=False) == ""


def test_the_readme_leaves_the_command_within_reach():
    text = README.read_text()
    (first,) = re.findall(r"<!-- demo -->\n```sh\n(.*?)\n```", text, re.DOTALL)
    assert first.endswith("&& . .venv/bin/activate && asif-jax demo")
