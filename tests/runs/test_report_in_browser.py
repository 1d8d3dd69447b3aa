"""The page in a real browser: it draws, sorts, answers the mouse, loads nothing, and takes no text for markup."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.text import label
from runs.report.page import write_page
from tests.runs.browser import CHROMIUM, Page, browser
from tests.runs.odd_experiment import CLASSES, ODD, REASON, SETTINGS, write
from tests.runs.odd_experiment import LABELS as GIVEN

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
PLAIN = label(ODD, len(ODD))  # what cannot be seen is shown as this
LABELS = [label(name, len(name)) for name in GIVEN]

# Gives what is written beside the mouse, as soon as something is.
SAID = """function look(done, left) {
    const said = [...document.querySelectorAll('.hoverlayer .hovertext')].map(one => one.textContent).join('|');
    said || !left ? done(said) : setTimeout(() => look(done, left - 1), 50);
}"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_page([str(write(folder / "experiment"))], folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def opened(file: Path) -> Iterator[Page]:
    with browser() as page:
        page.look()
        page.open(file)
        yield page


@pytest.fixture
def page(opened: Page) -> Iterator[Page]:
    """Wide and light, with everything shown; after each test it must not have complained, nor loaded anything."""
    opened.look()
    yield opened
    assert not opened.problems
    assert {address.split(":")[0] for address in opened.requests} <= {"file", "data", "blob"}
    assert len({address for address in opened.requests if address.startswith("file:")}) == 1
    assert opened.run("window.hit") is None


def rows(page: Page) -> list[str]:
    """Labels of the first table, from the top."""
    return list(
        page.run("[...document.querySelector('.sortable').tBodies[0].rows].map(row => row.cells[0].dataset.value)")
    )


def centre(page: Page, selector: str, last: bool = False) -> tuple[float, float]:
    """Where an element is, once it is in the middle of the window."""
    which = f"[...document.querySelectorAll({selector!r})].at({-1 if last else 0})"
    page.run(f"{which}.scrollIntoView({{block: 'center'}})")
    x, y = page.run(f"(box => [box.x + box.width / 2, box.y + box.height / 2])({which}.getBoundingClientRect())")
    return x, y


def hover(page: Page, x: float, y: float) -> str:
    """What the picture under the mouse says."""
    page.move(x - 3, y)
    page.move(x, y)
    return str(page.run(f"new Promise(done => ({SAID})(done, 100))"))


def click(page: Page, selector: str) -> None:
    x, y = centre(page, selector)
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def choose(page: Page, name: str, value: str) -> None:
    page.run(f"document.getElementById({name!r}).value = {json.dumps(value)}")
    page.run(f"document.getElementById({name!r}).dispatchEvent(new Event('change'))")


def test_every_part_is_there(page: Page) -> None:
    shown = page.run("[...document.querySelectorAll('#figures section')].filter(one => !one.hidden).map(one => one.id)")
    assert shown == ["curves", "recall", "confusion", "detection"]  # the data of who holds what are not there
    titles = page.run("[...document.querySelectorAll('#curves h3')].map(one => one.textContent)")
    assert titles == ["Accuracy on clean test, %", "Accuracy on clean validation, %", "Training loss on clients, nats"]
    curves = page.run("document.querySelectorAll('#curves .plot:first-of-type .scatterlayer .js-line').length")
    assert curves >= len(LABELS)
    looks = page.run("[...document.querySelectorAll('#legend line')].map(line => line.getAttribute('class'))")
    assert len(set(looks)) == len(LABELS)


def test_tables_are_sorted_by_click_and_by_keyboard(page: Page) -> None:
    before = rows(page)
    assert sorted(before) == sorted(LABELS)
    heading = "document.querySelectorAll('.sortable thead')[0].rows[0].cells[2]"
    click(page, ".sortable th:nth-child(3) button")
    largest_first = rows(page)
    assert page.run(f"{heading}.getAttribute('aria-sort')") == "descending"
    values = page.run(
        "[...document.querySelector('.sortable').tBodies[0].rows].map(row => Number(row.cells[2].dataset.value))"
    )
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 3
    page.run(f"{heading}.querySelector('button').focus()")
    page.press("Enter", 13, "\r")
    assert page.run(f"{heading}.getAttribute('aria-sort')") == "ascending"
    assert rows(page) != largest_first
    click(page, ".sortable th:nth-child(1) button")
    assert page.run(f"{heading}.getAttribute('aria-sort')") == "none"
    assert rows(page)[0] == PLAIN  # signs come before letters
    assert (
        page.run("[...document.querySelectorAll('.sortable')][1].querySelector('[aria-sort]:not([aria-sort=none])')")
        is None
    )


def test_curves_and_cells_say_what_they_are(page: Page) -> None:
    said = hover(page, *centre(page, "#curves .scatterlayer .trace:last-child .points path", last=False))
    assert "round 1: " in said
    assert "2 seeds: " in said
    assert any(label[:20] in said for label in LABELS)
    said = hover(page, *centre(page, "#recall .heatmaplayer image"))
    assert "%" in said
    assert any(name[:10] in said for name in CLASSES)


def test_somebody_elses_text_is_text(page: Page) -> None:
    assert page.run("document.title") == f"Grid {PLAIN}"
    for selector in ("h1 bdi", ".problems", "#runs", "#machine", "#legend"):
        assert (
            page.run(f"document.querySelectorAll('{selector} :is(b, i, img, script, a, svg:not(.swatch))').length") == 0
        )
    texts = page.run("[...document.querySelectorAll('bdi')].map(one => one.textContent)")
    assert {*LABELS, *SETTINGS, "<b>Xeon</b>"} <= {*texts}
    assert any(REASON in text for text in texts)
    options = page.run("[...document.querySelectorAll('option')].map(one => one.textContent)")
    assert {*SETTINGS} <= {*options}
    # In the pictures: Plotly reads markup, and gets none.
    assert page.run("document.querySelectorAll('.plot :is(a, b, img), .plot [style*=bold] :is(a, img)').length") == 0
    ticks = page.run("[...document.querySelectorAll('#recall .ytick text')].map(one => one.textContent)")
    assert len(ticks) == len(LABELS)
    odd = ticks[LABELS.index(PLAIN)]
    assert odd.startswith("</script><scrip…")
    assert odd.endswith(PLAIN[-8:])
    ticks = page.run("[...document.querySelectorAll('#confusion .xtick text')].map(one => one.textContent)")
    assert ticks[0] == CLASSES[0]
    assert ticks[1].startswith("<img src=x")
    assert ticks[4:] == ["Shirt", "Shirt"]


def test_other_settings_labels_and_lines_are_shown(page: Page) -> None:
    lines = "document.querySelector('#curves .plot').data.filter(trace => trace.name).length"
    count = page.run(lines)
    click(page, "#legend button")
    assert page.run("document.querySelector('#legend button').getAttribute('aria-pressed')") == "false"
    assert page.run(lines) == count - 1
    click(page, "#legend button")
    assert page.run(lines) == count
    before = page.run("[...document.querySelector('#curves .plot').data.at(-1).y]")
    choose(page, "setting", "1")
    assert page.run("[...document.querySelector('#curves .plot').data.at(-1).y]") != before
    choose(page, "setting", "0")
    choose(page, "confusion-label", PLAIN)
    said = hover(page, *centre(page, "#confusion .heatmaplayer image"))
    assert said.startswith("</script>")


def test_dark_light_and_printed(page: Page, tmp_path: Path) -> None:
    colours = "[getComputedStyle(document.body).backgroundColor, document.querySelector('.ytick text').style.fill]"
    light = page.run(colours)
    page.look(scheme="dark")
    dark = page.run(colours)
    assert light[0] == "rgb(255, 255, 255)"
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    page.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert page.run(colours) == dark  # and all is as it was
    assert page.run("document.documentElement.className") == ""


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.look(width)
    assert page.run("document.documentElement.scrollWidth") <= width
    plots = page.run(
        "[...document.querySelectorAll('.charts .plot')].map(one => one.firstChild.getBoundingClientRect().right)"
    )
    assert max(plots) <= width


def test_a_command_is_copied(page: Page) -> None:
    page.run("document.querySelectorAll('.run')[0].open = true")
    page.run(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { window.copy = text; }}})"
    )
    button = "document.querySelector('.run .copy')"  # which says so for two seconds
    said = f"new Promise(done => {{ {button}.click(); setTimeout(() => done({button}.textContent), 50); }})"
    assert page.run(said) == "Copied"
    assert page.run("window.copy") == page.run("document.querySelector('.run code').textContent")
    assert "flwr run . --stream" in page.run("window.copy")


def test_nothing_can_be_loaded_or_run(opened: Page) -> None:
    """Even if some text came through: that is what its policy is for. The last test: the page complains."""
    element = "Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:9/x.png'})"
    refused = "new Promise(done => addEventListener('securitypolicyviolation', event => done(event.blockedURI)))"
    assert opened.run(f"(now => (document.body.append({element}), now))({refused})") == "http://127.0.0.1:9/x.png"
    opened.run("document.body.insertAdjacentHTML('beforeend', '<img src=data:x onerror=\"window.hit = 1\">')")
    opened.run("new Promise(done => setTimeout(done, 200))")
    assert opened.run("window.hit") is None
