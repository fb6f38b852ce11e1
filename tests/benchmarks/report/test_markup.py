"""HTML by construction: text is escaped, markup is not, attributes are quoted."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from fusible.benchmarks.report.markup import Markup, tag
from tests.benchmarks.report.made_up import HOSTILE


def test_elements() -> None:
    inner = tag("b", "x & y", class_="bold")
    assert inner == '<b class="bold">x &amp; y</b>'
    assert tag("p", "1 < 2 ", inner) == f"<p>1 &lt; 2 {inner}</p>"
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert tag("meta", name="x", attributes={"data-y": '"'}) == '<meta name="x" data-y="&quot;">'
    assert isinstance(inner, Markup)


class Seen(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: list[str | None] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text() | st.just(HOSTILE))
def test_text_never_becomes_markup(text: str) -> None:
    seen = Seen()
    seen.feed(tag("p", text, title=text))
    seen.close()
    assert seen.tags == ["p"]
    assert seen.text == (seen.values[0] or "")
    assert seen.text.isprintable()
