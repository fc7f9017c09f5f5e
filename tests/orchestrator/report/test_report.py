"""Cells, means and differences computed by hand, and every form in which they are shown."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from elth.errors import ElthError
from orchestrator.experiment.axes import Axes
from orchestrator.experiment.papers import Paper
from orchestrator.plan.stage import Stage
from orchestrator.report.cells import Cell, Imps, Report, cells_of
from orchestrator.report.forms import sheets, to_csv, to_json, write
from orchestrator.report.judgement import judge
from orchestrator.report.latex import to_latex
from orchestrator.report.markdown import to_markdown
from orchestrator.report.sheets import sheet_csv, sheet_markdown, texts_of
from orchestrator.store.listing import Tracked
from tests.orchestrator.report.helpers import PAPER, printed


def _tracked(
    method: str,
    accuracy: float | None,
    *,
    seed: int = 0,
    network: str = "resnet20",
    source: str = "",
    transform: str = "",
    k: int = 2,
    nonzeros: int = 250,
    numerics: str = "cpu",
    dataset: str = "digits",
    target: str = "",
    ticket: str = "",
    variant: str = "",
    collapsed: tuple[str, ...] = (),
) -> Tracked:
    """A finished stage as the store tells of it; its network has 1,000 prunable weights."""
    kind = {"rewind": "rewind_point", "imp": "round", "dense": "round"}.get(method, "retraining")
    labels = {"network": network, "method": method, "source": source, "transform": transform}
    labels |= {"target": target} if target else {}
    labels |= {"ticket": ticket} if ticket else {}
    labels |= {"variant": variant} if variant else {}
    stage = Stage(
        kind=kind, params={}, labels={**labels, "round": k, "seed": seed, "dataset": dataset}
    )
    return Tracked(
        run_id=f"{network}-{method}{source}{transform}-{k}-{seed}",
        key="",
        stage=stage,
        grids=frozenset(),
        status="finished",
        reason="",
        is_final=False,
        nonzeros=nonzeros,
        prunable=1000,
        accuracy=accuracy,
        seconds=1.5,
        numerics=numerics,
        started=0,
        collapsed=collapsed,
    )


def _all() -> list[Tracked]:
    """ETT on seeds 0, 1 and 2, IMP on seeds 0, 2 and 3: two are common."""
    found = [_tracked("rewind", 10.0, k=0), _tracked("dense", 96.0, k=0, nonzeros=1000)]
    for seed, accuracy in ((2, 93.0), (0, 90.0), (3, 99.0)):
        found.append(_tracked("imp", accuracy, seed=seed))
    for seed, accuracy, nonzeros in ((1, 50.0, 240), (2, 92.0, 260), (0, 91.0, 280)):
        found.append(
            _tracked(
                "ett",
                accuracy,
                seed=seed,
                nonzeros=nonzeros,
                source="resnet14",
                transform="append",
            )
        )
    found.append(_tracked("random", 70.0))
    return found


def _report(found: Sequence[Tracked] | None = None, missing: int = 0) -> Report:
    cells = cells_of(_all() if found is None else found)
    return Report(grid="hand", cells=cells, missing=missing)


def _cell(method: str, report: Report | None = None) -> Cell:
    return next(cell for cell in (report or _report()).cells if cell.method == method)


# Cells


def test_a_cell_gathers_its_seeds_in_their_order() -> None:
    cell = _cell("ett")
    assert cell.seeds == (0, 1, 2)
    assert cell.accuracy == (91.0, 50.0, 92.0)
    assert cell.nonzeros == (280, 240, 260)
    assert cell.sparsity == pytest.approx((0.72 + 0.76 + 0.74) / 3)
    assert (cell.source, cell.transform, cell.round) == ("resnet14", "append", 2)
    assert cell.runs[1] == "resnet20-ettresnet14append-2-1"
    assert cell.seconds == (1.5, 1.5, 1.5)


def test_mean_and_deviation_of_a_sample() -> None:
    cell = _cell("ett")
    mean = 233 / 3
    assert cell.mean == pytest.approx(mean)
    squares = (91 - mean) ** 2 + (50 - mean) ** 2 + (92 - mean) ** 2
    assert cell.deviation == pytest.approx(math.sqrt(squares / 2))
    assert _cell("random").deviation is None
    assert _cell("random").mean == 70.0


def test_the_difference_to_imp_is_over_common_seeds() -> None:
    report = _report()
    # Seed 0: 91 - 90, seed 2: 92 - 93; seeds 1 and 3 have no counterpart.
    assert Imps(report.cells).difference(_cell("ett")) == pytest.approx(0.0)
    assert Imps(report.cells).difference(_cell("random")) == pytest.approx(-20.0)
    assert Imps(report.cells).difference(_cell("imp")) is None
    assert Imps(report.cells).difference(_cell("dense")) is None  # there is no IMP of round 0


def test_there_is_no_difference_without_an_imp_of_the_same_network_round_and_seed() -> None:
    imp = _tracked("imp", 90.0)
    for other in (
        _tracked("random", 80.0, k=1),
        _tracked("random", 80.0, network="resnet32"),
        _tracked("random", 80.0, seed=1),
    ):
        report = _report([imp, other])
        assert Imps(report.cells).difference(_cell("random", report)) is None


def test_rewind_points_and_stages_without_accuracy_are_no_cells() -> None:
    found = [_tracked("rewind", 10.0), _tracked("imp", None)]
    assert cells_of(found) == ()


def test_two_results_for_one_cell_and_seed_are_refused() -> None:
    with pytest.raises(ElthError, match="two results for imp on resnet20, round 2: the grid mixes"):
        cells_of([_tracked("imp", 90.0), _tracked("imp", 91.0)])


def test_cells_are_sorted_whatever_the_order_they_come_in() -> None:
    found = [
        _tracked("imp", 1.0, network="resnet110"),
        _tracked("imp", 1.0, network="resnet14"),
        _tracked("imp", 1.0, network="resnet20(width=4)"),
        _tracked("imp", 1.0, network="mlp2"),
        *_all(),
        _tracked("imp", 1.0, k=1),
        _tracked("magnitude", 1.0),
        _tracked("ett", 1.0, source="resnet32", transform="drop"),
        _tracked("reinit", 1.0),
    ]
    axes = [(c.network, c.round, c.method, c.source) for c in cells_of(found)]
    assert axes == [
        ("mlp2", 2, "imp", ""),
        ("resnet14", 2, "imp", ""),
        ("resnet20", 0, "dense", ""),
        ("resnet20", 1, "imp", ""),
        ("resnet20", 2, "imp", ""),
        ("resnet20", 2, "ett", "resnet14"),
        ("resnet20", 2, "ett", "resnet32"),
        ("resnet20", 2, "reinit", ""),
        ("resnet20", 2, "random", ""),
        ("resnet20", 2, "magnitude", ""),
        ("resnet20(width=4)", 2, "imp", ""),
        ("resnet110", 2, "imp", ""),
    ]
    assert cells_of(found[::-1]) == cells_of(found)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("dense", "dense"),
        ("imp", "IMP"),
        ("ett", "ETT <- resnet14 append"),
        ("random", "Random"),
    ],
)
def test_names(method: str, name: str) -> None:
    assert _cell(method).name == name


def test_names_of_what_is_made_of_a_moved_ticket() -> None:
    moved: dict[str, Any] = {"source": "resnet20@svhn", "transform": "append"}
    (cell,) = cells_of([_tracked("ett_reinit", 50.0, **moved)])
    assert cell.name == "ETT mask, reinit <- resnet20@svhn append"
    assert cell.is_moved
    assert not _cell("random").is_moved


def _exact() -> list[Tracked]:
    """IMP at rounds 2 and 3; IMP and SNIP between them at exactly 80 and 85 %."""
    found = [_tracked("imp", 90.0), _tracked("imp", 86.0, k=3, nonzeros=125)]
    for target, accuracy in (("0.8", 88.0), ("0.85", 87.0)):
        kept = round(1000 * (1 - float(target)))
        found.append(_tracked("imp", accuracy, k=3, nonzeros=kept, target=target))
        found.append(_tracked("snip", accuracy - 8, k=3, nonzeros=kept, target=target))
    return found


def test_an_exact_sparsity_is_a_cell_of_its_own() -> None:
    cells = cells_of(_exact())
    assert [(c.method, c.round, c.target, c.mean) for c in cells] == [
        ("imp", 2, "", 90.0),
        ("imp", 3, "0.8", 88.0),
        ("snip", 3, "0.8", 80.0),
        ("imp", 3, "0.85", 87.0),
        ("snip", 3, "0.85", 79.0),
        ("imp", 3, "", 86.0),  # of 87.5 %
    ]
    # What is compared stands at one level.
    assert [Imps(cells).difference(c) for c in cells if c.method == "snip"] == [-8.0, -8.0]
    alone = cells_of([_tracked("imp", 90.0, k=3), _exact()[3]])
    assert [Imps(alone).difference(cell) for cell in alone] == [None, None]


def test_a_variant_that_imp_has_not_stands_beside_that_of_the_experiment_itself() -> None:
    cells = cells_of(
        [
            _tracked("imp", 90.0, k=2),
            _tracked("imp", 80.0, k=3),
            _tracked("imp", 70.0, k=3, variant="long"),
            _tracked("rigl", 91.0, k=2, variant="x5"),
            _tracked("reinit", 60.0, k=3, variant="long"),
            _tracked("reinit", 60.0, k=2, variant="long"),  # IMP has the variant, not this round
        ]
    )
    of = {(c.method, c.round): Imps(cells).difference(c) for c in cells if c.method != "imp"}
    assert of == {("rigl", 2): 1.0, ("reinit", 3): -10.0, ("reinit", 2): None}
    late = [Axes(dataset="digits", network="resnet20", method="imp", round=9, variant="x5")]
    (rigl,) = (cell for cell in cells if cell.method == "rigl")
    assert Imps(cells, late).difference(rigl) is None, "IMP's own is planned"


def _imported() -> list[Tracked]:
    """IMP of the network's own, and beside it what comes of an imported ticket of 300 weights."""
    theirs: dict[str, Any] = {"ticket": "theirs"}
    return [
        *(_tracked("dense", 96.0, k=0, nonzeros=1000), _tracked("imp", 90.0, k=1, nonzeros=500)),
        *(_tracked("imp", 80.0 - k, k=k, nonzeros=300 - 60 * k, **theirs) for k in (0, 1)),
        _tracked("reinit", 70.0, k=0, nonzeros=300, **theirs),
        _tracked("imp", 75.0, k=2, nonzeros=200, target="0.8", **theirs),
    ]


def test_what_comes_of_an_imported_ticket_is_apart() -> None:
    cells = cells_of(_imported())
    assert [(c.name, c.round, c.target, c.mean) for c in cells] == [
        ("dense", 0, "", 96.0),
        ("IMP from theirs", 0, "", 80.0),
        ("Reinit from theirs", 0, "", 70.0),
        ("IMP", 1, "", 90.0),
        ("IMP from theirs", 1, "", 79.0),
        ("IMP from theirs", 2, "0.8", 75.0),
    ]
    assert [Imps(cells).difference(c) for c in cells if c.method == "reinit"] == [-10.0]
    found = json.loads(to_json(_report(_imported())))
    assert [one.get("ticket") for one in found] == [
        *(None, "theirs", "theirs", None, "theirs", "theirs")
    ]
    text = printed(_report(_imported()))
    assert "Rounds of lines from theirs are counted from an imported ticket" in text
    (line,) = [line for line in text.splitlines() if "│ IMP " in line and "from" not in line]
    assert "90.00" in line
    assert "80.00" not in line
    assert "imported" not in printed(_report())
    head, *rest = to_csv(_report(_imported())).splitlines()
    at = head.split(",").index("ticket")
    assert [row.split(",")[at] for row in rest][:2] == ["", "theirs"]
    assert "ticket" not in to_csv(_report())


def test_no_papers_table_is_of_an_imported_ticket() -> None:
    paper = Paper(title="E-LTH", layout="by_method", round=1)
    (sheet,) = sheets(
        dataclasses.replace(_report(_imported()), paper=paper, dataset="digits", rounds=2)
    )
    assert [name for name, _ in sheet.rows] == ["dense", "IMP"]


def test_only_a_cell_at_an_exact_sparsity_names_it() -> None:
    cells = json.loads(to_json(_report(_exact())))
    assert [cell.get("target") for cell in cells] == [None, "0.8", "0.8", "0.85", "0.85", None]
    contract = ["network", "method", "source", "transform", "round", "dataset", "sparsity"]
    contract += ["seeds", "nonzeros", "accuracy", "accuracy_mean", "accuracy_sd", "judgement"]
    assert [list(cells[place]) for place in (0, -1)] == [contract, contract]
    assert list(cells[2]) == [*contract[:6], "target", *contract[6:]]
    rows = list(csv.DictReader(io.StringIO(to_csv(_report(_exact())))))
    assert [row["target"] for row in rows] == ["", "0.8", "0.8", "0.85", "0.85", ""]


def test_columns_are_in_the_order_of_sparsity() -> None:
    # Round 3 prunes more than the last smaller rounds, which count as the third too.
    text = printed(_report(_exact()))
    header = next(line for line in text.splitlines() if "75.00" in line)
    assert [word for word in header.split() if word[0].isdigit()] == [
        *("75.00", "80.00"),
        *("85.00", "87.50"),
    ]
    row = next(line for line in text.splitlines() if "SNIP" in line)
    assert [cell.strip() for cell in row.split("│")[2:-1]] == [
        *("", "80.00 (-8.00)"),
        *("79.00 (-8.00)", ""),
    ]


# Forms


def test_json_is_what_the_contract_says() -> None:
    cells = json.loads(to_json(_report()))
    assert [cell["method"] for cell in cells] == ["dense", "imp", "ett", "random"]
    against = [one["against"]["method"] for one in cells[2].pop("judgement")]
    assert against == ["dense", "imp"]
    assert cells[2] == {
        "network": "resnet20",
        "method": "ett",
        "source": "resnet14",
        "transform": "append",
        "round": 2,
        "dataset": "digits",
        "sparsity": pytest.approx(0.74),
        "seeds": [0, 1, 2],
        "nonzeros": [280, 240, 260],
        "accuracy": [91.0, 50.0, 92.0],
        "accuracy_mean": pytest.approx(233 / 3),
        "accuracy_sd": pytest.approx(23.96525, abs=1e-4),
    }
    assert cells[3]["accuracy_sd"] is None


def test_json_is_equal_byte_for_byte_for_other_runs_times_and_hosts() -> None:
    other = [
        dataclasses.replace(one, run_id="x", seconds=99.0, numerics="gpu", started=5)
        for one in reversed(_all())
    ]
    assert to_json(_report(other)) == to_json(_report())
    provenance = [to_json(_report(found), provenance=True) for found in (other, None)]
    assert provenance[0] != provenance[1]


def test_provenance_adds_runs_classes_and_times() -> None:
    cell = json.loads(to_json(_report(), provenance=True))[1]
    assert cell["runs"] == [f"resnet20-imp-2-{seed}" for seed in (0, 2, 3)]
    assert cell["numerics"] == ["cpu"] * 3
    assert cell["seconds"] == [1.5] * 3


def test_csv() -> None:
    rows = list(csv.reader(io.StringIO(to_csv(_report()))))
    axes = ["network", "method", "source", "transform", "round", "target", "dataset"]
    before = [
        *axes,
        *("sparsity", "seeds", "nonzeros", "accuracy_mean", "accuracy_sd", "minus_imp"),
        "which_seeds",
    ]
    judged = ("n", "difference", "low", "high", "confidence", "p", "verdict", "more_seeds")
    assert rows[0] == [*before, *(f"{m}_{name}" for m in ("dense", "imp") for name in judged)]
    assert [row[: len(before)] for row in rows[1:]] == [
        [
            *("resnet20", "dense", "", "", "0", "", "digits"),
            *("0.000000", "1", "1000.0", "96.0000", "", "", "0"),
        ],
        [
            *("resnet20", "imp", "", "", "2", "", "digits"),
            *("0.750000", "3", "250.0", "94.0000", "4.5826", "", "0 2 3"),
        ],
        [
            *("resnet20", "ett", "resnet14", "append", "2", "", "digits"),
            *("0.740000", "3", "260.0", "77.6667", "23.9653", "0.0000", "0 1 2"),
        ],
        [
            *("resnet20", "random", "", "", "2", "", "digits"),
            *("0.750000", "1", "250.0", "70.0000", "", "-20.0000", "0"),
        ],
    ]
    own = [row[len(before) :] for row in rows[1:]]
    assert own[0] == [""] * 16, "the dense network is compared with nothing"
    assert own[1] == ["1", "-6.0", "", "", "0.98333333", "", "undecided", "", *[""] * 8]
    # 1 and -1 of two seeds: t is 25.452 at 97.5 %, and the standard error 1.
    assert own[2][8:] == ["2", "0.0", "-25.4517", "25.4517", "0.975", "1.0", "undecided", "97"]


def test_a_folder_holds_one_report(tmp_path: Path) -> None:
    """What an earlier one had and the next has not would be taken for its own."""
    first = {path.name for path in write(_report(), tmp_path)}
    (tmp_path / "mine.png").touch()
    (tmp_path / "analysis_travel.png").touch()
    second = {path.name for path in write(_report([]), tmp_path)}
    assert first > second
    assert {path.name for path in tmp_path.iterdir()} == second | {"mine.png"}


def test_a_part_is_called_one_in_every_form() -> None:
    report = dataclasses.replace(_report(), only="method=imp", beside="the grid holds more")
    judged = judge(report)
    for text in (printed(report), to_markdown(report, judged), to_latex(report, judged)):
        assert "Only method=imp is shown." in text
        assert "the grid holds more" in text


def test_of_one_seed_no_deviation_is_explained() -> None:
    one = _report([_tracked("imp", 88.0, network="resnet14", nonzeros=500)])
    assert "last epoch, of one seed; in brackets" in to_markdown(one, judge(one))
    assert "over the seeds that both have" not in printed(one)
    several = _report()
    assert "mean ± standard deviation over seeds" in to_markdown(several, judge(several))
    assert "the difference to IMP over the seeds that both have" in " ".join(
        printed(several).split()
    )
    nothing = _report([])
    assert "Test accuracy" not in to_markdown(nothing, judge(nothing))


def test_a_table_for_each_network() -> None:
    report = _report([*_all(), _tracked("imp", 88.0, network="resnet14", nonzeros=500)])
    text = printed(report)
    assert text.index("resnet14 on digits, seed 0") < text.index("resnet20 on digits, seeds 0 to 3")
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if "│" in line}
    assert "94.00 ± 4.58" in lines["IMP"]
    assert "77.67 ± 23.97 (+0.00)" in lines["ETT <- resnet14 append"]
    assert "at 74.00 %" in text  # a ticket that is moved is not trimmed
    assert "70.00, n = 1 (-20.00)" in lines["Random"]
    assert "96.00" in lines["dense"]
    header = next(line for line in text.splitlines() if "0.00" in line and "75.00" in line)
    assert header.index("0.00") < header.index("75.00")
    assert "mean ± standard deviation over 1 or 3 seeds" in text
    assert "not finished" not in text
    assert "numerics" not in text


def test_notes_tell_what_is_missing_and_what_is_mixed() -> None:
    mixed = _report([_tracked("imp", 90.0), _tracked("imp", 91.0, seed=1, numerics="gpu")], 3)
    assert mixed.numerics == ("cpu", "gpu")
    text = " ".join(printed(mixed).split())
    assert "3 stages of this grid are not finished." in text
    assert "come from several numerics classes" in text
    assert text.endswith("cpu; gpu.")


def test_notes_tell_what_is_ended_apart_from_what_is_missing() -> None:
    whole = _report([_tracked("imp", 90.0), _tracked("imp", 91.0, seed=1)])
    told = dataclasses.replace(whole, ended=7, endings=("x round 7, seed 0 has 11.2 % < 12 %",))
    text = " ".join(printed(told).split())
    assert (
        "7 stages of this grid are ended by pruning.stop, as a chain ended before them: x round 7, "
        "seed 0 has 11.2 % < 12 %."
    ) in text
    assert "not finished" not in text
    assert "seeds whose chains went on" not in text
    assert to_json(told) == to_json(whole)
    two = [_tracked("imp", 90.0), _tracked("imp", 91.0, seed=1)]
    fewer = cells_of([*two, _tracked("imp", 80.0, k=3)])
    many = tuple(f"x round {k}, seed 0 has 1 % < 12 %" for k in range(11))
    text = " ".join(printed(dataclasses.replace(told, cells=fewer, endings=many)).split())
    assert "x round 7, seed 0 has 1 % < 12 %; and 3 more. Means after that are of the seeds" in text


def test_one_seed_is_no_mean() -> None:
    text = printed(_report([_tracked("imp", 90.0)]))
    assert "accuracy over 1 seed; in brackets" in text
    assert "±" not in text


def test_of_many_rounds_those_are_shown_where_there_is_something_to_compare() -> None:
    found = [_tracked("dense", 96.0, k=0, nonzeros=1000)]
    found += [_tracked("imp", 90.0, k=k, nonzeros=1000 - 50 * k) for k in range(1, 9)]
    text = printed(_report(found))
    assert all(f"{5 * k}.00" in text for k in range(1, 9))
    text = printed(_report([*found, _tracked("random", 50.0, k=4, nonzeros=800)]))
    assert "20.00" in text
    assert "25.00" not in text


def test_no_line_of_a_table_is_empty() -> None:
    """Criteria at an exact sparsity, where no round of IMP is: its last one has a column too."""
    found = [_tracked("dense", 96.0, k=0, nonzeros=1000)]
    found += [_tracked("imp", 90.0 - k, k=k, nonzeros=1000 - 50 * k) for k in range(1, 9)]
    found += [_tracked("snip", 40.0, k=9, target="0.55", nonzeros=450)]
    text = printed(_report(found))
    header = next(line for line in text.splitlines() if "sparsity %" in line)
    assert [word for word in header.split() if word[0].isdigit()] == ["0.00", "40.00", "55.00"]
    assert "82.00" in next(line for line in text.splitlines() if "IMP " in line)


@pytest.mark.parametrize(
    ("compared", "shown"),
    [
        ([3, 6, 9], [0, 3, 6, 9]),
        ([*range(1, 6)], [0, 1, 2, 3, 4, 5]),
        # Of 13 levels, 0 to 12, every 2.4th: 0, 2.4, 4.8, 7.2, 9.6 and 12.
        ([*range(1, 13)], [0, 2, 5, 7, 10, 12]),
    ],
    ids=str,
)
def test_many_levels_are_thinned_to_six_columns(compared: list[int], shown: list[int]) -> None:
    found = [_tracked("dense", 96.0, k=0, nonzeros=1000)]
    found += [_tracked("imp", 90.0, k=k, nonzeros=1000 - 50 * k) for k in range(1, 13)]
    found += [_tracked("random", 80.0, k=k, nonzeros=1000 - 50 * k) for k in compared]
    text = printed(_report(found))
    header = next(line for line in text.splitlines() if "sparsity %" in line)
    assert [word for word in header.split() if word[0].isdigit()] == [f"{5 * k}.00" for k in shown]


def test_collapsed_layers_are_told() -> None:
    conv, head = "layer2.0.shortcut.0.weight", "fc.weight"
    found = [
        _tracked("imp", 90.0, nonzeros=20, collapsed=()),
        _tracked("snip", 10.0, nonzeros=20, collapsed=(conv,)),
        _tracked("snip", 10.0, nonzeros=20, seed=1, collapsed=(conv, head)),
    ]
    report = _report(found)
    text = " ".join(printed(report).split())
    assert f"SNIP on resnet20 at 98.00 % has lost every weight of {conv}, {head}." in text
    assert text.count("has lost") == 1
    assert "collapsed" not in to_json(report)
    cells = json.loads(to_json(report, provenance=True))
    assert [cell["collapsed"] for cell in cells] == [[], [conv, head]]


def test_settings_that_are_not_the_published_ones_are_told() -> None:
    report = dataclasses.replace(
        _report([_tracked("snip", 90.0)]), criteria={"snip": {"samples": 64}}
    )
    assert "SNIP differs from its published settings: samples=64." in printed(report)
    assert "published" not in printed(dataclasses.replace(report, criteria={}))


def test_of_many_collapsed_cells_eight_are_told() -> None:
    found = [_tracked("imp", 10.0, k=k, collapsed=("fc.weight",)) for k in range(1, 12)]
    text = " ".join(printed(_report(found)).split())
    assert text.count("has lost every weight of fc.weight") == 8
    assert "So have 3 more cells: see provenance.json." in text
    assert "So have" not in printed(_report(found[:8]))


def _of_paper(**changes: Any) -> Report:
    paper = PAPER.model_copy(update=changes)
    return dataclasses.replace(_report(), paper=paper, dataset="digits", rounds=2)


def test_the_papers_table_comes_first() -> None:
    text = printed(_of_paper())
    title = "A paper, Table 9, round 2 (75.00 % sparsity): digits"
    assert text.lstrip().startswith(title)
    assert text.index(title) < text.index("resnet20 on digits")
    row = next(line for line in text.splitlines() if "IMP" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        *("IMP", "94.00 ± 4.58", "95.50"),
        *("-", "96.50"),
    ]
    words = " ".join(text.split())
    assert "paper: as printed in A paper, Table 9." in words
    assert "Its seeds are unknown." in words


def test_a_paper_without_printed_numbers_is_not_spoken_of_as_printed() -> None:
    text = " ".join(printed(_of_paper(printed=())).split())
    assert "A paper, Table 9, round 2 (75.00 % sparsity): digits" in text
    assert "as printed in" not in text


def test_the_papers_table_is_of_its_round_or_of_the_last() -> None:
    found = [*_all(), _tracked("imp", 80.0, k=1, nonzeros=500)]
    report = dataclasses.replace(_of_paper(), cells=cells_of(found))
    shown = {}
    for changes in ({}, {"round": 1}, {"round": 3}):
        one = dataclasses.replace(report, paper=PAPER.model_copy(update=changes))
        (sheet,) = sheets(one)
        shown[sheet.title] = dict(texts_of(sheet)[1][i][:2] for i in (0, 1))
    assert shown == {
        "A paper, Table 9, round 2 (75.00 % sparsity): digits": {
            "dense": "96.00",
            "IMP": "94.00 ± 4.58",
        },
        "A paper, Table 9, round 1 (50.00 % sparsity): digits": {"dense": "96.00", "IMP": "80.00"},
        "A paper, Table 9, round 3: digits": {"dense": "96.00", "IMP": "-"},
    }


def test_a_paper_changes_no_cell() -> None:
    assert to_json(_of_paper()) == to_json(_report())
    assert to_csv(_of_paper()) == to_csv(_report())


def test_the_papers_table_is_written_where_there_is_one(tmp_path: Path) -> None:
    report = _of_paper()
    paths = {path.name: path for path in write(report, tmp_path / "table")}
    assert set(paths) == {*FILES, "paper.md", "paper.csv"}
    laid_out = sheets(report)
    assert paths["paper.md"].read_text() == "\n".join(map(sheet_markdown, laid_out))
    assert "| IMP | 94.00 ± 4.58 | 95.50 | - | 96.50 |" in paths["paper.md"].read_text()
    assert paths["paper.csv"].read_text() == sheet_csv(laid_out)
    # A figure has no table.
    paths = {path.name: path for path in write(_of_paper(layout="curves"), tmp_path / "c")}
    assert set(paths) == set(FILES)
    assert not (tmp_path / "c" / "paper.md").exists()


def test_an_empty_report_is_no_error(tmp_path: Path) -> None:
    empty = _report([], missing=7)
    assert to_json(empty) == "[]\n"
    assert len(to_csv(empty).splitlines()) == 1
    assert "7 stages of this grid are not finished." in printed(empty)
    assert len(write(empty, tmp_path)) == 4


# Files

FILES = ["table.txt", "cells.csv", "cells.json", "provenance.json", "table.md", "table.tex"]
FILES += ["verdicts.csv", "verdicts.json", "accuracy.png", "accuracy.svg"]


def test_all_files_are_written(tmp_path: Path) -> None:
    report = _report()
    paths = write(report, tmp_path / "a" / "b")
    assert [path.name for path in paths] == FILES
    assert all(path.stat().st_size for path in paths)
    assert paths[1].read_text() == to_csv(report)
    assert paths[2].read_text() == to_json(report)
    assert paths[3].read_text() == to_json(report, provenance=True)
    assert "94.00 ± 4.58" in paths[0].read_text()
    assert "\x1b" not in paths[0].read_text()
    write(report, tmp_path / "a" / "b")  # over what is there


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ElthError, match=f"cannot write the report to {tmp_path}/file: "):
        write(_report(), tmp_path / "file")
