import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from asif_jax.jobs.demo import demo
from asif_jax.web import report


@pytest.fixture
def content(tmp_path):
    picture = tmp_path / "a<b>.png"
    Image.new("RGB", (400, 100), "red").save(picture)
    caption = 'A <b>"fox"</b> & friends'
    evidence = demo.Evidence(picture, caption, 0.25)
    example = demo.Prediction(picture, caption, [demo.CaptionGuess(caption, 0.5, True)], [evidence])
    return report.Report(
        title="A <model>",
        facts=[("pairs", "3 & more")],
        recall=[report.RecallRow("image to text", [(1, 0.3069, 0.0116), (5, 0.637, 0.058)])],
        confusion=report.Confusion(["animal", "food"], [[8, 2], [1, 9]]),
        examples=[example],
        searches=[demo.Searched("a <red> thing", [demo.FoundImage(picture, caption, 0.125)])],
        skipped=[("c.png", "cut short")],
    )


class Page(HTMLParser):
    """Checks that tags nest, and collects text and attributes."""

    VOID = ("meta", "img", "br")

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.attributes = [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_holds_everything_as_text(content):
    page = Page(report.render(content))
    text = " ".join(" ".join(page.text).split())
    for expected in (
        "A <model>",
        "3 & more",
        'A <b>"fox"</b> & friends',
        "a <red> thing",
        "30.7%",
        "chance 1.2%",
        "85.0%",
        "50%",
        "c.png: cut short",
    ):
        assert expected in text


def test_the_page_needs_no_other_file(content):
    page = Page(report.render(content))
    sources = [value for tag, name, value in page.attributes if name in ("src", "href")]
    assert len(sources) == 3
    for source in sources:
        kind, data = re.fullmatch(r"data:image/(\w+);base64,(.*)", source).groups()
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert (kind, image.size) == ("jpeg", (200, 50))
    assert all(value for tag, name, value in page.attributes if name == "alt")


def test_empty_sections_are_left_out():
    page = Page(report.render(report.Report("Title", [])))
    assert "h2" not in {tag for tag, *_ in page.attributes}
    assert "How often" not in "".join(page.text)


def test_the_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    report.write_report(path, "first")
    assert path.read_text() == "first"

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="No space"):
        report.write_report(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
