"""Text is written and read as UTF-8, whatever the locale says: files, and what processes tell.

ruff's PLW1514 sees this where it can infer that something is a path; here any call of these names
is looked at.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

_MODE = {"open": 1, "fdopen": 1, "TemporaryFile": 0, "NamedTemporaryFile": 0, "makefile": 0}
"""Where calls take their mode; the method ``open`` of a path takes it first."""
_OTHERS = {"urlopen", "safe_open", "webbrowser", "Image", "tarfile", "zipfile", "_Shard", "grids"}
"""What has an ``open`` that is of no text."""


def _problems(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        words = {word.arg: word.value for word in node.keywords}
        if "encoding" in words:
            continue
        name, owner = "", ""
        if isinstance(node.func, ast.Name):
            name = node.func.id
        elif isinstance(node.func, ast.Attribute):
            name = node.func.attr
            inner = node.func.value
            owner = getattr(inner, "attr", getattr(inner, "id", ""))
        if (name == "read_text" and not node.args) or (name == "write_text" and len(node.args) < 2):
            yield node.lineno, f"{name} names no encoding"
        elif name in _MODE and owner not in _OTHERS:
            of_path = isinstance(node.func, ast.Attribute) and name == "open"
            place = 0 if of_path else _MODE[name]
            given = words.get("mode", node.args[place] if len(node.args) > place else None)
            modes = [] if given is None else list(ast.walk(given))  # of a choice, both
            told = [one.value for one in modes if isinstance(one, ast.Constant)]
            default = "w+b" if name.endswith("TemporaryFile") else "r"
            if owner != "os" and not all("b" in str(mode) for mode in told or [default]):
                yield node.lineno, f"{name} names no encoding"
        elif {"text", "universal_newlines"} & words.keys() and name in ("run", "Popen"):
            yield node.lineno, f"{name} gives text and names no encoding"


@pytest.mark.parametrize("folder", ["elth", "orchestrator", "benchmarks", "faults"])
def test_text_names_its_encoding(folder: str) -> None:
    if not (ROOT / folder).is_dir():
        pytest.skip(f"{folder}/ is not here")
    found = [
        f"{path.relative_to(ROOT)}:{line}: {problem}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, problem in _problems(ast.parse(path.read_bytes()))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("p.read_text()", 1),
        ("p.read_text('utf-8')", 0),
        ("p.write_text(t)", 1),
        ("p.write_text(t, encoding='utf-8')", 0),
        ("open(p)", 1),
        ("open(p, 'rb')", 0),
        ("p.open()", 1),
        ("p.open('ab')", 0),
        ("p.open('rb' if reading else 'ab')", 0),
        ("p.open('rb' if reading else 'a')", 1),
        ("(folder / 'x').open('ab')", 0),
        ("(folder / 'x').open('a')", 1),
        ("tempfile.TemporaryFile(dir=d)", 0),
        ("tempfile.TemporaryFile('w+')", 1),
        ("subprocess.run(w, text=True)", 1),
        ("subprocess.run(w, text=True, encoding='utf-8')", 0),
        ("subprocess.run(w)", 0),
        ("os.open(p, flags)", 0),
    ],
)
def test_the_rule_sees_what_it_is_for(code: str, count: int) -> None:
    assert len(list(_problems(ast.parse(code)))) == count
