"""The status page as a browser gets it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from pgamb.observe.page import REFRESH_S, duration, render_page, size
from pgamb.observe.snapshot import Readiness, RegistryState
from tests.unit.observe.sample import EVIL, member, snapshot


class Reader(HTMLParser):
    """Collects what a reader sees, and every tag with its attributes; complains of tags that are not closed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data)


def test_the_page_shows_what_there_is() -> None:
    words = Reader(render_page(snapshot())).words
    text = "\n".join(words)
    assert "ready: pg1, the primary, answers" in words
    assert "no, for 12 s: Connection refused" in words
    assert "1 min 15 s by session 17, pinned by listen" in words
    assert "123 kB" in words
    assert "Held: these wait for a primary" in words
    assert "topology confirmed 0.2 s ago" in text
    assert "up 1 h 1 min" in text
    assert "8 of 10,000" in words
    assert "not ready" not in text


def test_it_is_refreshed_by_the_browser_and_asks_for_nothing_else() -> None:
    page = render_page(snapshot())
    tags = Reader(page).tags
    assert ("meta", {"http-equiv": "refresh", "content": str(REFRESH_S)}) in tags
    assert not {tag for tag, _ in tags} & {"script", "img", "link", "iframe", "object", "base"}
    assert {attributes["href"] for tag, attributes in tags if tag == "a"} == {"status.json", "metrics"}
    assert "url(" not in page


@pytest.mark.parametrize(
    "changes",
    [
        {"service": EVIL},
        {"readiness": Readiness(False, EVIL)},
        {"members": (member(EVIL, zone=EVIL, last_error=EVIL, down_s=1.0, addresses=(EVIL,)),)},
        {"conflict": (EVIL, "pg2"), "listening": (EVIL,)},
        {"gave_up": {EVIL: 1}},
    ],
    ids=["service", "reason", "member", "conflict", "counter"],
)
def test_no_name_becomes_part_of_the_page(changes: dict[str, object]) -> None:
    page = render_page(snapshot(**changes))
    assert "<script" not in page
    assert "<script>alert" in "".join(Reader(page).words)


def test_trouble_stands_out() -> None:
    page = render_page(snapshot(readiness=Readiness(False, "no member answers"), draining=True, conflict=("a", "b")))
    bad = re.findall(r'<p class="bad">([^<]*)</p>', page)
    assert bad == [
        "not ready: no member answers",
        "draining: takes no new connection",
        "a and b claim to be primary on one timeline: no writes until one is stopped",
    ]


def test_what_the_registry_notes_is_shown() -> None:
    registry = RegistryState("patroni+etcd://h/s/d", "h:1", True, 0.1, None, ("Patroni is paused", "pg1 drains"))
    assert "; Patroni is paused; pg1 drains<" in render_page(snapshot(registry=registry))


def test_nothing_at_all_is_a_page_too() -> None:
    words = Reader(render_page(snapshot(members=(), pools=(), held=()))).words
    assert words.count("none") == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (9.94, "9.9 s"),
        (10.0, "10 s"),
        (59.9, "59 s"),
        (60.0, "1 min 0 s"),
        (3725.0, "1 h 2 min"),
        (90_000.0, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (5_000_000_000_000_000, "5000 TB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text
