import fnmatch
import shutil

import huggingface_hub.constants
import pytest
from huggingface_hub import errors

from asif_jax.encoders.weights import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHERS = ("model_fp16.onnx", "tf_model.h5", "onnx/model.safetensors", "README.md")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def put(cache, files):
    """Lays files into the cache as the hub's client does."""
    repository = cache / "models--some--model"
    for file in files:
        path = repository / "snapshots" / COMMIT / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository / "snapshots" / COMMIT


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A repository with the given files, whose downloads are recorded as (revision, files)."""
    downloads = []

    def offer(files):
        def download(name, *, revision, allow_patterns):
            assert name == "some/model"
            directory = tmp_path / COMMIT
            chosen = {f for f in files if any(fnmatch.fnmatch(f, p) for p in allow_patterns)}
            for file in chosen:
                (directory / file).parent.mkdir(parents=True, exist_ok=True)
                (directory / file).touch()
            downloads.append((revision, chosen))
            return str(directory)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        return downloads

    return offer


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_the_cache_is_enough(cache, revision):
    directory = put(cache, ["config.json", "model.safetensors"])
    assert hub.fetch("some/model", revision=revision) == directory
    assert hub.fetch(f"some/model@{COMMIT}") == directory


def test_no_network_and_no_cache_is_one_clear_error(cache):
    with pytest.raises(ValueError, match=r"^some/model cannot .* cache, and the hub cannot be re"):
        hub.fetch("some/model")
    put(cache, ["config.json", "model.safetensors"])
    with pytest.raises(ValueError, match=r"^some/model at revision v2 cannot be read"):
        hub.fetch("some/model", revision="v2")


def test_only_what_is_needed_is_downloaded(remote):
    files = {"config.json", "1_Pooling/config.json", "tokenizer.json", "model.safetensors"}
    downloads = remote([*files, "pytorch_model.bin", *OTHERS])
    hub.fetch("some/model", revision="v1")
    assert downloads == [("v1", files)]


def test_shards_are_downloaded(remote):
    files = {f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    files |= {"model.safetensors.index.json", "config.json"}
    downloads = remote([*files, *OTHERS])
    hub.fetch("some/model")
    assert downloads == [(None, files)]


def test_pickles_are_downloaded_where_there_is_nothing_else(remote):
    downloads = remote(["config.json", "pytorch_model.bin", "training_args.bin", *OTHERS])
    directory = hub.fetch("some/model")
    assert [revision for revision, _ in downloads] == [None, COMMIT]
    assert {path.name for path in directory.iterdir()} == {"config.json", "pytorch_model.bin"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.GatedRepoError, "may not be read: its owners ask .* HF_TOKEN"),
        (errors.RepositoryNotFoundError, "no such repository, or a private one"),
        (errors.RevisionNotFoundError, "no such revision"),
        (errors.LocalEntryNotFoundError, "the hub cannot be reached"),
        (ConnectionResetError, "cannot be read from the hub: the reason$"),
    ],
)
def test_refusals_are_explained(monkeypatch, error, message):
    def refuse(*_, **__):
        failure = error.__new__(error)
        Exception.__init__(failure, "the reason\nand more")
        raise failure

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ValueError, match=message) as caught:
        hub.fetch("some/model@v1")
    assert str(caught.value).startswith("some/model at revision v1")
    assert "\n" not in str(caught.value)


def test_two_revisions_are_refused():
    with pytest.raises(ValueError, match="at revision v1 or v2"):
        hub.fetch("some/model@v1", revision="v2")


def test_an_interrupted_download_is_no_cache(cache):
    directory = put(cache, ["config.json", "model.safetensors"])
    shutil.rmtree(directory)
    with pytest.raises(ValueError, match="not wholly, in the local cache"):
        hub.fetch("some/model")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("facebook/dino-vits16", True),
        ("BAAI/bge-small-en-v1.5@refs/pr/3", True),
        ("vit", False),
        ("/models/vit", False),
        ("some/where/vit", False),
        ("some/model.pth@", False),
    ],
)
def test_names_of_repositories_have_one_form(name, expected):
    assert hub.is_hub_name(name) is expected
