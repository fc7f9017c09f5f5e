"""The documents name what the command line has."""

from __future__ import annotations

import re
from pathlib import Path

import click

from orchestrator.cli.main import cli

_DOCS = Path(__file__).parents[3] / "docs"


def _commands() -> dict[str, click.Command]:
    context = click.Context(cli)
    found = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def _blocks(page: str) -> str:
    text = (_DOCS / page).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))


def test_every_command_stands_on_the_page_of_commands() -> None:
    blocks = _blocks("commands.md")
    missing = [n for n in _commands() if not re.search(rf"\belth {re.escape(n)}\b", blocks)]
    assert missing == []


def test_every_command_that_prints_json_stands_in_the_table_of_its_keys() -> None:
    text = (_DOCS / "running.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    printing = {
        name
        for name, command in _commands().items()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert printing - told == set()
    assert printing  # there are such commands
