"""What documents say, against the product: commands, configs, links, what the code writes.

``tests/elth/test_readme.py`` runs the Python of README.md, ``tests/e2e/test_documents.py`` its
commands.
"""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from jsonschema import Draft7Validator

import elth
from docs import generate
from orchestrator.cli.main import cli
from orchestrator.experiment import schema
from orchestrator.experiment.notation import parse
from orchestrator.experiment.shipped import shipped

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(p for p in sorted((ROOT / "docs").glob("*.md")) if p.name != "reference.md"),
]


def _blocks(page: Path, language: str) -> list[str]:
    """What stands between the fences of a language; of none as a rule, which are commands."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def _lines(page: Path) -> Iterator[str]:
    """The commands of a page, one a line, without comments."""
    for block in _blocks(page, ""):
        whole = re.sub(r"'\w+=\[[^']*\]'", lambda found: found[0].replace("\n", " "), block)
        for line in whole.replace("\\\n", " ").splitlines():
            for one in re.split(r"\||&&|(?<= )>(?= )", re.sub(r"(^| )#.*", "", line)):
                yield re.sub(r"^(\w+=\S+ +)+", "", one.strip())


def _examples(group: click.Group) -> Iterator[str]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from _examples(command)
        else:
            for line in str(getattr(command, "example", "")).splitlines():
                yield re.split(r" [|>#] ", f"{line} ")[0].partition("#")[0].strip()


COMMANDS = sorted({line for page in PAGES for line in _lines(page) if line.startswith("elth ")})


def _parsed(line: str) -> tuple[click.Command, dict[str, Any]]:
    """The command of a line and what is given to it, as the command line reads it."""
    command: click.Command = cli
    _, *words = shlex.split(line)
    while isinstance(command, click.Group):
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    # A command remembers its help options by the first context that it is read in.
    above = click.Context(cli, **cli.context_settings)
    context = click.Context(command, parent=above, info_name=line)
    given, rest, _ = command.make_parser(context).parse_args(words)
    assert not rest, f"too many arguments: {rest}"
    for parameter in command.params:
        value = given.get(parameter.name or "")
        if parameter.required:
            assert isinstance(value, str | list | tuple), f"{parameter.name} is missing"
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            assert value in parameter.type.choices
    return command, given


def test_there_are_commands_to_look_at() -> None:
    assert len(COMMANDS) > 40
    assert "elth init mine" in COMMANDS
    assert {page.stem for page in PAGES if any(_lines(page))} >= {"README", "commands", "cluster"}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_documents_can_be_given(line: str) -> None:
    _, given = _parsed(line)
    config = given.get("config") or given.get("name")
    if isinstance(config, str) and re.match("quickstart|fig|table|maene|v1_", config):
        assert config in shipped()


@pytest.mark.parametrize("line", sorted(set(_examples(cli))))
def test_an_example_of_the_help_can_be_given(line: str) -> None:
    _parsed(line)


@pytest.mark.parametrize(
    "line",
    ["elth plna x", "elth plan", "elth plan x --redo y", "elth report", "elth completion tcsh"],
)
def test_a_command_that_cannot_be_given_is_found(line: str) -> None:
    with pytest.raises((AssertionError, click.UsageError)):
        _parsed(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`elth ([a-z]+)\b(?!\.)", text))
    assert named <= cli.commands.keys()
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    made = {
        word
        for line in re.findall(r"(?:`|^)make ([a-z][a-z -]*)", text, re.M)
        for word in line.split()
    }
    assert made <= targets


def _anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [*PAGES, generate.REFERENCE], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match("[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"\]\((\w+\.md)\)", index))


@functools.cache
def _validator(*, whole: bool) -> Draft7Validator:
    """Of configs, or of parts of one."""
    known = schema.schema()
    return Draft7Validator(known if whole else {k: v for k, v in known.items() if k != "required"})


@pytest.mark.parametrize(
    ("page", "block"),
    [(page, block) for page in PAGES for block in _blocks(page, "yaml")],
    ids=lambda value: value.name if isinstance(value, Path) else None,
)
def test_the_configs_of_the_documents_are_valid(page: Path, block: str) -> None:
    """Most are parts of one: what a file needs is asked for only where it looks like a whole."""
    value = parse(block.replace("3f9c…", "a" * 64), page.name).value
    if re.search(r"\b(nets|my_lab)\b", block):
        value.setdefault("plugins", ["./nets.py"])
    validator = _validator(whole=value.keys() >= {"dataset", "seeds", "recipe", "grid"})
    assert [error.message for error in validator.iter_errors(value)] == []


def test_the_config_of_the_readme_is_a_whole_one() -> None:
    (block,) = _blocks(ROOT / "README.md", "yaml")
    assert {"dataset", "seeds", "recipe", "grid"} <= parse(block, "README.md").value.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_is_python(page: Path) -> None:
    for block in _blocks(page, "python"):
        ast.parse(
            re.sub(r"^(@elth\.dataset\((?s:.*?)^\)\n)\Z", r"\1def f(): ...", block, flags=re.M)
        )


_STALE = "it is not what the code says: make reference writes it anew"


def test_the_reference_is_what_the_code_says() -> None:
    assert generate.REFERENCE.read_text(encoding="utf-8") == generate.reference(), _STALE


def test_every_row_of_the_reference_says_what_it_is() -> None:
    rows = [line for line in generate.reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 200
    assert [row for row in rows if row.endswith("|  |")] == []


def test_the_trainings_of_the_configs_are_those_of_their_plans() -> None:
    assert generate.TRAININGS.read_text(encoding="utf-8") == generate.trainings(), _STALE


def test_all_that_elth_gives_is_named() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert [name for name in elth.__all__ if f"`{name}`" not in text] == []
