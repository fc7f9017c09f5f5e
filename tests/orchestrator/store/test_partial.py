"""What an analysis has so far: found again by the next process, or refused with a note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store.inflight import Stopped
from orchestrator.store.partial import Partial

KEY = "ab" * 32


def _partial(folder: Path, **changes: Any) -> Partial:
    words: dict[str, Any] = {"numerics": "cpu/1", "seconds": 0.0, "begins": "these weights"}
    return Partial(folder, KEY, **(words | changes))


def _save(partial: Partial, *points: int) -> None:
    for last in points:
        partial.save_if_due({"points": list(range(last))})


def test_the_next_process_has_what_came_furthest(tmp_path: Path) -> None:
    first, second = _partial(tmp_path), _partial(tmp_path)
    _save(first, 1, 2, 3)
    _save(second, 1)
    found = _partial(tmp_path)
    assert found.newest() == {"points": [0, 1, 2]}
    assert found.notes == []
    assert found.earlier > 0
    _save(found, 4)
    assert _partial(tmp_path).newest() == {"points": [0, 1, 2, 3]}
    found.clear()
    assert _partial(tmp_path).newest() == {}


def test_what_is_of_other_weights_is_not_gone_on_from(tmp_path: Path) -> None:
    _save(_partial(tmp_path, begins="others"), 1, 2, 3)
    _save(_partial(tmp_path), 1)
    assert _partial(tmp_path).newest() == {"points": [0]}


def test_another_numerics_class_is_told(tmp_path: Path) -> None:
    _save(_partial(tmp_path), 1)
    found = _partial(tmp_path, numerics="cpu/2")
    assert found.newest() == {"points": [0]}
    (note,) = found.notes
    assert "was begun in the numerics class cpu/1 and goes on in cpu/2" in note
    assert found.numerics == "cpu/1 then cpu/2"


@pytest.mark.parametrize("harm", ["{", "[]", '{"so_far": {}}'])
def test_a_damaged_file_is_set_aside_and_the_one_before_is_taken(tmp_path: Path, harm: str) -> None:
    _save(_partial(tmp_path), 1)
    damaged = _partial(tmp_path)
    _save(damaged, 1, 2)
    (file,) = (
        f for f in (tmp_path / KEY).glob("*.json") if json.loads(f.read_bytes())["count"] > 1
    )
    file.write_text(harm, encoding="utf-8")
    found = _partial(tmp_path)
    assert found.newest() == {"points": [0]}
    (note,) = found.notes
    assert "is set aside and not used" in note
    assert not file.exists()


def test_a_value_that_was_changed_is_noticed(tmp_path: Path) -> None:
    _save(_partial(tmp_path), 1)
    (file,) = (tmp_path / KEY).glob("*.json")
    plain = json.loads(file.read_bytes())
    plain["so_far"]["points"] = [7]
    file.write_text(json.dumps(plain), encoding="utf-8")
    found = _partial(tmp_path)
    assert found.newest() == {}
    assert "checksum" in found.notes[0]


def test_it_is_written_as_often_as_was_asked_and_when_the_run_ends(tmp_path: Path) -> None:
    asked = False
    seldom = _partial(tmp_path, seconds=3600.0, stop=lambda: asked)
    _save(seldom, 1)
    assert _partial(tmp_path).newest() == {}
    asked = True
    with pytest.raises(Stopped):
        _save(seldom, 2)
    assert _partial(tmp_path).newest() == {"points": [0, 1]}
