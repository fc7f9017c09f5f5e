"""``report.html`` in a real browser: offline, by keyboard, on a phone, in print, and by axe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from matplotlib.figure import Figure

from orchestrator.experiment.claims import Claim
from orchestrator.experiment.papers import Paper, Printed
from orchestrator.report.analyses import Point
from orchestrator.report.analysis_forms import Entry, Spread
from orchestrator.report.flops import Costs, Spent
from orchestrator.report.inline import inline
from orchestrator.report.judgement import judge
from orchestrator.report.page import Missing, Picture, html, page_of
from tests.e2e.conftest import MILLISECONDS
from tests.orchestrator.report.pages import HOSTILE, cell_of, report_of, told_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.e2e

LAPTOP, PHONE = 1280, 390
SERVER = "http://127.0.0.1:1"

Open = Callable[..., "Page"]


def whole(**changes: Any) -> str:
    """A page with all that there may be on one."""
    cells = [cell_of("dense")]
    for k in range(1, 6):
        words = (("imp", 0.0), ("ett", 0.1), ("reinit", -3.0), ("random", -2.0))
        for method, above in words:
            values = tuple(
                95 - k + above + 0.1 * (seed + len(method) * k) % 0.7 for seed in range(5)
            )
            fields: dict[str, Any] = {"accuracy": values, "seeds": tuple(range(5))}
            if method == "ett":
                fields |= {"source": "resnet14", "transform": "append"}
            cells.append(cell_of(method, k, **fields))
    cells += [cell_of("imp", 2, network="resnet14", seeds=(0,)), cell_of("imp", network="mlp")]
    report = report_of(
        *cells,
        missing=3,
        ended=1,
        endings=("resnet14 round 3, seed 1 is the last, as its accuracy is below 12 %",),
        paper=Paper(
            title="E-LTH, Table 1",
            layout="by_method",
            round=4,
            printed=(Printed(network="resnet20", method="imp", accuracy=91.5),),
            note="As it is printed.",
        ),
        dataset="digits",
        rounds=4,
        asked=frozenset({("digits", "resnet20"), ("digits", "resnet14")}),
        claims=(
            Claim.model_validate({"imp": "above", "of": ["reinit", "random"], "round": 4}),
            Claim.model_validate({"ett": "matches", "of": "imp", "round": [4, 5]}),
        ),
    )
    missing = {
        "running": (Missing(reason="", titles=("resnet20 round 5, seed 9",)),),
        "failed": (
            Missing(
                reason="the loss is not finite (elth run --retry-failed does it again)",
                titles=("resnet14 round 3, seed 1",),
                log=("Traceback: " + "a very long line of it " * 20, "TrainingError"),
            ),
        ),
        "blocked": (Missing(reason="resnet14 round 3, seed 1 failed", titles=("a", "b")),),
    }
    spent = [
        Spent(cell=cell, inference=1 - cell.sparsity, training=0.4, search=3.0, shared=1.5)
        for cell in report.cells
    ]
    counted = Costs(grid="tiny", spent=tuple(spent), reference="resnet20", unit={"digits": 1e9})
    told = told_of(report, missing=missing, origins={"elth": ("0.1.0",), "commit": ("0f" * 20,)})
    told = dataclasses.replace(told, **changes)
    page = page_of(report, told, judge(report), counted=counted)
    figure = Figure(figsize=(14, 3))
    figure.subplots(1, 4)[0].plot([1, 2, 3])
    picture = Picture(title="A wide one", svg=inline(figure, page.palette, name="x-", alt="Wide"))
    point = Point(level=(1, ""), remaining=0.5, values=(0.25, 0.5), of=2)
    entries = (Entry(point=point, elsewhere="50"), None)
    spread = Spread(title="barrier", columns=("100", "80"), rows=(("IMP", entries),))
    analyses = (("barrier", (spread,), (picture,)),)
    return html(dataclasses.replace(page, analyses=analyses, lacking=("one: its file is gone",)))


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens a page from its file, that must ask nothing of others, complain of nothing, pop up."""
    said: list[str] = []
    contexts: list[BrowserContext] = []

    def open_(
        text: str,
        width: int = LAPTOP,
        scheme: Literal["light", "dark"] = "light",
        *,
        script: bool = True,
    ) -> Page:
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            java_script_enabled=script,
            offline=True,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(MILLISECONDS)
        own = path.as_uri()
        page.on("request", lambda one: _note(said, one.url, own))
        page.on("console", lambda one: said.append(one.text))
        page.on("pageerror", lambda one: said.append(str(one)))
        page.on("dialog", lambda one: said.append(one.message))
        page.goto(own)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert said == []


def _note(said: list[str], url: str, own: str) -> None:
    if not url.startswith((own, "data:")):
        said.append(url)


def test_it_opens_without_a_network_and_says_what_there_is(opened: Open) -> None:
    page = opened(whole())
    headings = page.locator("h2").all_inner_texts()
    assert headings == [
        *("Question", "Verdict", "Claims", "Figures", "The paper's table beside ours", "Cells"),
        *("What is missing, and why", "Analyses", "Notes", "To repeat it"),
    ]
    assert "Of 2 claims of this experiment" in page.locator(".answer").inner_text()
    links = page.locator("nav a")
    for place in range(links.count()):
        assert page.locator(str(links.nth(place).get_attribute("href"))).count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [LAPTOP, PHONE])
def test_axe_finds_nothing(opened: Open, width: int, scheme: Literal["light", "dark"]) -> None:
    page = opened(whole(server=SERVER, experiment="7"), width, scheme)
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [n["target"] for n in one["nodes"]][:3]) for one in found] == []


def test_it_is_no_wider_than_a_phone(opened: Open) -> None:
    page = opened(whole(), PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE
    shown = page.locator("tr[data-i] th").first.bounding_box()
    assert shown is not None
    region = page.get_by_role("region", name="Cells of resnet20 on digits")
    region.evaluate("one => { one.scrollLeft = 300; }")
    stays = page.locator("tr[data-i] th").first.bounding_box()
    assert stays is not None
    assert stays["x"] == shown["x"], "the names stay where they are"


def test_tables_are_sorted_by_keyboard(opened: Open) -> None:
    page = opened(whole())
    region = page.get_by_role("region", name="Cells of resnet20 on digits")
    head = region.get_by_role("columnheader", name="accuracy")
    means = region.locator("tbody .mean")
    as_given = means.all_inner_texts()
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    numbers = [float(text) for text in means.all_inner_texts()]
    assert numbers == sorted(map(float, as_given))
    assert page.get_by_role("status").inner_text().startswith("Sorted by accuracy")
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(text) for text in means.all_inner_texts()] == numbers[::-1]
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") is None
    assert means.all_inner_texts() == as_given
    gaps = region.get_by_role("columnheader", name="minus IMP")
    gaps.get_by_role("button").click()
    column = region.get_by_role("columnheader").all_inner_texts().index(gaps.inner_text())
    rows = region.locator("tbody tr").all()
    texts = [row.locator("th, td").nth(column).inner_text().split(" ")[0] for row in rows]
    found = [float(text.replace("\u2212", "-")) for text in texts if text]
    assert found == sorted(found)
    assert found[0] < 0
    assert not any(texts[len(found) :]), "what has none is last"


def test_long_tables_can_be_narrowed(opened: Open) -> None:
    page = opened(whole())
    page.get_by_label("Only rows with").fill("ett")
    region = page.get_by_role("region", name="Cells of resnet20 on digits")
    names = region.locator("tbody tr:visible th").all_inner_texts()
    assert set(names) == {"ETT <- resnet14 append"}
    assert "5 of 21" in page.locator(".narrow").inner_text()


def test_without_its_script_it_can_be_read(opened: Open) -> None:
    page = opened(whole(server=SERVER, experiment="7"), script=False)
    region = page.get_by_role("region", name="Cells of resnet20 on digits")
    assert region.locator("tbody tr").count() == 21
    assert len(region.locator(".each").first.inner_text().split()) >= 3
    assert page.locator("button, input").count() == 0


def test_numbers_of_a_server_lead_to_their_runs(opened: Open) -> None:
    page = opened(whole(server=SERVER, experiment="7"))
    row = page.locator('tr[data-i="1"]')
    addresses = [one.get_attribute("href") for one in row.locator(".each a").all()]
    assert addresses == [f"{SERVER}/#/experiments/7/runs/imp1{seed}" for seed in range(5)]
    assert row.locator(".each a").nth(2).get_attribute("title") == "seed 2"
    mean = str(row.locator(".mean a").get_attribute("href"))
    assert mean.startswith(f"{SERVER}/#/compare-runs?runs=%5B%22imp10%22%2C")
    assert mean.endswith("&experiments=%5B%227%22%5D")
    alone = page.locator("tr[data-i]", has=page.get_by_role("link", name="87.00")).last
    assert str(alone.locator(".mean a").get_attribute("href")).startswith(f"{SERVER}/#/")


def test_a_layer_is_named_under_the_pointer(opened: Open) -> None:
    page = opened(whole())
    strip = page.locator('tr[data-i="1"] .h')
    strip.hover(position={"x": 100, "y": 5})
    assert page.locator("#tip").inner_text() == "fc.weight: 50.00 % zeros"
    page.mouse.move(1, 1)
    assert page.locator("#tip").is_hidden()


def test_it_is_printed_dark_on_light(opened: Open) -> None:
    page = opened(whole(), scheme="dark")
    colours = (
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert page.evaluate(colours) == ["rgb(22, 25, 29)", "rgb(232, 234, 237)"]
    line = "getComputedStyle(document.querySelector('.plot text')).fill"
    assert page.evaluate(line) == "rgb(232, 234, 237)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(colours) == ["rgb(255, 255, 255)", "rgb(22, 25, 29)"]
    assert page.evaluate(line) == "rgb(22, 25, 29)"
    assert page.locator("nav").is_hidden()
    assert page.pdf().startswith(b"%PDF")


def test_what_people_wrote_does_nothing(opened: Open) -> None:
    names = ("dense", "imp", HOSTILE, "a\"b'c")
    report = report_of(*(cell_of(one, network=f"net{HOSTILE}") for one in names))
    layers = [{HOSTILE: 0.5, "b": 0.25}] * len(names)
    told = told_of(report, fields={"description": HOSTILE}, layers=layers, server=SERVER)
    page = opened(html(page_of(report, told, judge(report))))
    assert page.locator(".lead").inner_text() == HOSTILE
    assert page.locator("tbody th").all_inner_texts()[2:] == [HOSTILE, "a\"b'c"]
    page.locator("tr[data-i] .h").first.hover(position={"x": 10, "y": 5})
    assert page.locator("#tip").inner_text() == f"{HOSTILE}: 50.00 % zeros"
    assert page.locator("img").count() == 0
