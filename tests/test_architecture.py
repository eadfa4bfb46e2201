"""The floors of the package are its folders: imports only go down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import asif_jax

PACKAGE = Path(asif_jax.__file__).parent

# From the ground up; rooms of one line do not import each other.
FLOORS = (
    ("core",),
    ("methods",),
    ("model",),
    ("encoders", "data"),
    ("store",),
    ("jobs",),
    ("web",),
    ("cli",),
    ("__main__",),
)
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}
GROUND = ("core", "methods")


def files(room):
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def imported(path):
    """Dotted names of everything a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_below(path):
    """The rooms of this package that a module imports from."""
    names = (name.split(".") for name in imported(path) if name.startswith("asif_jax"))
    return {parts[1] for parts in names}


def all_files():
    return [(room, path) for room in HEIGHT for path in files(room) if path.exists()]


def test_every_module_stands_on_a_floor():
    present = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert present - {"__init__", "__pycache__", "py"} <= set(HEIGHT)


@pytest.mark.parametrize(
    ("room", "path"), all_files(), ids=lambda part: str(part).removeprefix(f"{PACKAGE}/")
)
def test_imports_only_go_down(room, path):
    for below in rooms_below(path):
        assert below in HEIGHT, f"{path.name} imports {below} from the package itself"
        assert below == room or HEIGHT[below] < HEIGHT[room], f"{path.name} imports {below}"


@pytest.mark.parametrize(
    "path", [path for room in GROUND for path in files(room)], ids=lambda path: path.stem
)
def test_the_ground_floors_import_arrays_alone(path):
    outside = {name.split(".")[0] for name in imported(path)} - {"asif_jax"}
    assert outside - set(sys.stdlib_module_names) <= {"jax", "numpy"}


def test_importing_loads_the_ground_floors_alone():
    program = (
        "import sys, asif_jax;"
        "others = 'flax transformers PIL tqdm tyro safetensors tensorstore chex'.split();"
        "print([m for m in others if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
