import inspect

import pytest

from asif_jax import methods
from asif_jax.cli import choices, options
from asif_jax.cli.building import Add, Demo, Embed
from asif_jax.cli.importing import Import
from asif_jax.cli.judging import Eval, Tune
from asif_jax.cli.keeping import Log, Remove
from asif_jax.cli.options import EncoderOptions, MethodOptions, PipelineOptions, UnusableSetting
from asif_jax.cli.usage import parse
from asif_jax.cli.using import Classify, Explain, Search
from asif_jax.store import EncoderRecord, Settings

EMBED = (Embed, "embed", "photos", "-o", "model")
CLASSIFY = (Classify, "classify", "model", "a.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*EMBED, "--k", "-3"), "--k must be at least 1: got -3"),
        ((*EMBED, "--k", "0"), "--k must be at least 1: got 0"),
        ((*EMBED, "--k", "many"), "--k cannot be 'many'; see asif-jax embed --help"),
        ((*EMBED, "--p", "0"), "--p must be a finite number above 0"),
        ((*EMBED, "--p", "nan"), r"--p .* got \[nan\]"),
        ((*EMBED, "--p", "inf"), r"--p .* got \[inf\]"),
        ((*EMBED, "--batch", "0"), "--batch must be at least 1"),
        ((*EMBED, "--most-skipped", "1.5"), "--most-skipped must lie between 0 and 1: got 1.5"),
        ((*EMBED, "--most-skipped", "nan"), "--most-skipped must lie between 0 and 1: got nan"),
        ((*EMBED, "--dtype", "float16"), r"'--dtype'. Expected one of \('.*16', 'float32'\)|32'"),
        ((*EMBED, "--method", "ccaa"), "no method 'ccaa'; did you mean cca?"),
        ((*EMBED, "--method", "x"), "no method 'x'; there are best, two_cosines"),
        ((*EMBED, "--encoder", "speech"), "takes MODALITY=SOURCE, such as image=.*: got 'speech'"),
        ((*EMBED, "--encoder", "speech="), "takes MODALITY=SOURCE"),
        ((*EMBED, "--encoder", "a b=c"), "takes MODALITY=SOURCE"),
        ((*EMBED, "--encoder", "a=b", "--encoder", "a=c"), "--encoder names a twice"),
        ((*EMBED, "--encoder", "text=a", "--text-encoder", "b"), "text encoder is named twice"),
        ((*EMBED, "--image-encoder", ""), "the name of the image encoder is empty"),
        ((*EMBED, "--imageencoder", "a"), "did you mean --image-encoder SOURCE?"),
        ((Embed, "embed", "-o", "model"), "nothing to embed: name DATA"),
        ((Embed, "embed", "", "-o", "model"), "nothing to embed: name DATA"),
        ((Embed, "embed", "photos"), "missing: -o MODEL, --output MODEL; see asif-jax embed"),
        ((Add, "add", "model"), "nothing to add: name DATA"),
        ((Add, "add", "model", "photos", "--batch", "-1"), "--batch must be at least 1"),
        ((Demo, "demo", "--folds", "1"), "--folds must be at least 2: got 1"),
        ((Demo, "demo", "--report", "/nowhere/a.html"), "no such folder: /nowhere"),
        ((Demo, "demo", "--encoder", "speech=a:b"), "demo has no pairs with speech"),
        (CLASSIFY, "no labels to choose from"),
        ((*CLASSIFY, "--labels"), "no labels to choose from"),
        ((*CLASSIFY, "--labels", " "), "no labels to choose from"),
        ((*CLASSIFY, "--labels", "a", ""), r"one of these is empty: \['a', ''\]"),
        ((*CLASSIFY, "--labels", "a", "--top", "0"), "--top must be at least 1: got 0"),
        ((*CLASSIFY, "--labels", "a", "--prompts", "best"), "must be max or mean: got 'best'"),
        ((*CLASSIFY, "--labels", "a", "--templates"), "no template"),
        ((Classify, "classify", "model", "--labels", "a"), "no images to classify"),
        ((Search, "search", "model", ""), "nothing to look for"),
        ((Search, "search", "model", "a", "--top", "0"), "--top must be at least 1: got 0"),
        ((Explain, "explain", "model", "a.png", "a", "--top", "-1"), "--top must be at least 1"),
        ((Eval, "eval", "model", "photos", "--prompts", "best"), "must be max or mean"),
        ((Eval, "eval", "model", "photos", "--p", "-1"), r"--p .* got \[-1.0\]"),
        ((Tune, "tune", "model", "--splits", "0"), "--splits must be at least 1: got 0"),
        ((Tune, "tune", "model", "--k", "5", "0"), "--k must be at least 1: got 0"),
        ((Tune, "tune", "model", "--p", "2", "inf"), r"--p .* got \[inf\]"),
        ((Log, "log", "model", "--limit", "0"), "--limit must be at least 1: got 0"),
        ((Remove, "remove", "model"), "say what to remove: --images, --captions or --rows"),
        ((Remove, "remove", "model", "--captions", ""), "empty text"),
        ((Import, "import", "a", "-o", "b", "--image-encoder", "c", "--image-encoder-name", "d"),
         "the image encoder is named twice"),
    ],
)  # fmt: skip
def test_settings_that_are_of_no_use_are_refused_before_anything_runs(words, message):
    command, verb, *rest = words
    with pytest.raises(UnusableSetting, match=message) as refused:
        parse(command, verb, rest)
    assert "\n" not in str(refused.value)


def test_the_names_of_methods_are_those_of_the_table():
    assert set(options.METHODS) == set(methods.METHODS)


def test_encoders_of_any_modality():
    assert EncoderOptions().sources() == options.DEFAULT_ENCODERS
    command = parse(*EMBED[:2], [*EMBED[2:], "--encoder", "speech=mine:whisper", "--encoder",
                                 "image=efficientnet-lite0"])  # fmt: skip
    assert command.encoder.sources() == {
        "image": "efficientnet-lite0",
        "text": "all-MiniLM-L6-v2",
        "speech": "mine:whisper",
    }
    short = EncoderOptions(image_encoder="a/b", text_encoder="c=d")
    assert short.sources() == {"image": "a/b", "text": "c=d"}


def test_limits_that_are_of_use():
    assert PipelineOptions(batch=1, most_skipped=0).most_skipped == 0
    assert PipelineOptions(most_skipped=1).most_skipped == 1
    assert MethodOptions(method="paper", k=1, p=1e-3).k == 1


class TestChosenMethod:
    def test_nothing_is_asked_for(self):
        assert choices.chosen_method(None, None, None) is None
        assert choices.chosen_method(None, None, None, held=methods.cca()) is None

    @pytest.mark.parametrize("name", options.METHODS)
    def test_every_name_gives_its_method(self, name):
        chosen = choices.chosen_method(name, None, None)
        assert chosen is not None
        assert chosen.name == ("two_cosines" if name == "best" else name)

    @pytest.mark.parametrize("name", options.METHODS)
    def test_k_and_p_are_for_methods_that_take_them(self, name):
        takes = "k" in inspect.signature(methods.METHODS[name]).parameters or name == "best"
        if takes:
            chosen = choices.chosen_method(name, 7, 2.5)
            assert chosen is not None
            assert (chosen.settings["k"], chosen.settings["p"]) == (7, 2.5)
        else:
            with pytest.raises(ValueError, match=f"the method {name} takes no k and no p"):
                choices.chosen_method(name, 7, 2.5)
            with pytest.raises(ValueError, match=f"the method {name} takes no p$"):
                choices.chosen_method(name, None, 2.5)

    def test_what_is_not_named_is_the_models_own(self):
        held = methods.asif(k=5, p=2.0, shrinkage=3.0)
        chosen = choices.chosen_method(None, 9, None, held=held)
        assert chosen is not None
        assert (chosen.name, chosen.settings) == ("asif", {"k": 9, "p": 2.0, "shrinkage": 3.0})
        chosen = choices.chosen_method("paper", None, 4.0, held=held)
        assert chosen is not None
        assert (chosen.name, chosen.settings) == ("paper", {"p": 4.0})
        with pytest.raises(ValueError, match="the method cca takes no k"):
            choices.chosen_method(None, 9, None, held=methods.cca())

    def test_settings_of_a_store(self):
        for settings in (Settings(), Settings(3, None), Settings(3, 2.0)):
            assert choices.settings_of(choices.method_of(settings)) == settings
        assert choices.settings_of(None) == Settings()


def test_paths_of_encoders_are_kept_absolute(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "efficientnet-lite2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert choices.stored_source("mine") == str(tmp_path / "mine")
    for name in ("facebook/dino-vits16", "mine:encoder", "efficientnet-lite2"):
        assert choices.stored_source(name) == name


def test_encoders_known_by_name_alone():
    records = {"image": choices.record_by_name("open_clip:ViT-B-32"),
               "text": EncoderRecord("all-MiniLM-L6-v2", "0123")}  # fmt: skip
    assert records["image"] == ("open_clip:ViT-B-32", "name open_clip:ViT-B-32")
    choices.check_loadable("model", records, "text")
    with pytest.raises(ValueError, match="image encoder of model, open_clip:ViT-B-32, is known by"):
        choices.check_loadable("model", records, "text", "image")
    with pytest.raises(ValueError, match="model holds no speech: it holds image, text"):
        choices.check_loadable("model", records, "speech")
