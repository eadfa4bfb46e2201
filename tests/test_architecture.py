"""The three floors of the package: imports only go down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import asif_jax

PACKAGE = Path(asif_jax.__file__).parent
CORE = (
    "cosine",
    "selection",
    "nearest",
    "projection",
    "sharding",
    "approximate",
    "scoring",
    "anchors",
    "in_place",
    "explain",
    "metrics",
    "captions",
    "whitening",
    "hubness",
    "trust",
    "calibration",
    "tuning",
)
PARTS = ("encoders", "data", "store", "report", "checkpoint", "prompts")
JOBS = (
    "embed",
    "embed_set",
    "embed_store",
    "exchange",
    "import_store",
    "live",
    "evaluation",
    "zero_shot",
    "retrieval",
    "figures",
    "demo",
    "predict",
    "commands",
    "printing",
    "cli_store",
    "cli",
)


def modules(names):
    files = [PACKAGE / f"{name}.py" for name in names if not (PACKAGE / name).is_dir()]
    return files + [path for name in names for path in sorted((PACKAGE / name).glob("*.py"))]


def imported(path):
    """Dotted names of everything a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(path):
    """The rooms of this package that a module imports from."""
    own = (name.split(".") for name in imported(path) if name.startswith("asif_jax."))
    names = {path.stem for path in PACKAGE.iterdir()}
    return {parts[1] for parts in own if parts[1] in names}


def test_every_module_has_a_floor():
    present = {path.stem for path in PACKAGE.glob("*.py")}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == {"encoders", "data", "store"}
    present |= packages
    assert present - {"__init__"} == {*CORE, *PARTS, *JOBS}


@pytest.mark.parametrize("path", modules(CORE), ids=lambda path: path.stem)
def test_the_core_imports_arrays_alone(path):
    outside = {name.split(".")[0] for name in imported(path)} - {"asif_jax"}
    assert outside - set(sys.stdlib_module_names) <= {"jax", "numpy", "chex"}
    assert rooms(path) <= set(CORE)


@pytest.mark.parametrize("path", modules(PARTS), ids=lambda path: f"{path.parent.stem}-{path.stem}")
def test_the_parts_import_no_jobs(path):
    assert rooms(path) <= {*CORE, *PARTS}


def test_importing_loads_the_core_alone():
    program = (
        "import sys, asif_jax;"
        "others = 'flax transformers PIL tqdm tyro safetensors tensorstore'.split();"
        "print([m for m in others if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
