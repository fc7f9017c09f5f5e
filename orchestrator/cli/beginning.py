"""``elth init``, ``configs``, ``schema`` and ``completion``: to begin with."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import yaml
from rich.table import Table

from elth.errors import ElthError
from orchestrator.cli.common import PLACE, Command, out
from orchestrator.cli.completing import names

_TEMPLATE = Path(__file__).parent / "template"
SCHEMA = "elth.schema.json"
"""The file beside a config that editors read."""
_FOR_EDITORS = f"# yaml-language-server: $schema={SCHEMA}\n"


@click.command(cls=Command, example="elth init mine\nelth init --from fig6_cifar_resnets")
@click.argument("folder", type=PLACE, required=False, metavar="[DIR]")
@click.option(
    "--from",
    "name",
    metavar="NAME",
    shell_complete=names,
    help="Copy this config: one of elth configs.",
)
def init(folder: Path | None, name: str | None) -> None:
    """Begin an experiment of your own: a config with comments, a network and a dataset.

    They run as they are. With --from, DIR (the current folder if it is left out) gets a copy of a
    config that comes with elth. Either way a JSON schema lies beside it, by which editors complete
    keys and mark mistakes. Nothing that is there is overwritten.
    """
    if folder is None and name is None:
        raise click.UsageError("name a folder, as elth init mine, or a config by --from")
    place = Path() if folder is None else folder
    files = _own(place) if name is None else _copied(name)
    files[SCHEMA] = _schema()
    there = [place / file for file in files if (place / file).exists()]
    if there == [place / SCHEMA]:  # of a config that lies there already
        del files[SCHEMA]
    elif there:
        raise ElthError(f"{there[0]} is there already, and nothing was written: name another DIR")
    try:
        place.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            with (place / file).open("x", encoding="utf-8") as opened:
                opened.write(text)
    except OSError as error:
        raise ElthError(f"cannot write to {place}: {error.strerror}") from error
    for file in files:
        click.echo(f"wrote {place / file}", err=True)
    config = place / next(iter(files))
    place_of = shlex.quote(str(config))
    click.echo(f"elth plan {place_of}\nelth run {place_of}")


def _own(place: Path) -> dict[str, str]:
    """The files of a project, the config first."""
    name = re.sub(r"[^A-Za-z0-9_-]", "-", place.resolve().name).lstrip("-_") or "experiment"
    if not isinstance(yaml.safe_load(name), str):  # a number, a date, null
        name = f"experiment-{name}"
    config = (_TEMPLATE / "config.yaml").read_text(encoding="utf-8")
    config = config.replace("{file}", f"{name}.yaml").replace("{name}", name)
    code = {path.name: path.read_text(encoding="utf-8") for path in sorted(_TEMPLATE.glob("*.py"))}
    return {f"{name}.yaml": _FOR_EDITORS + config, **code}


def _copied(name: str) -> dict[str, str]:
    from orchestrator.experiment.shipped import named

    return {f"{name}.yaml": _FOR_EDITORS + named(name).read_text(encoding="utf-8")}


@click.command(cls=Command, example="elth configs\nelth configs fig6_cifar_resnets | less")
@click.argument("config", metavar="[NAME]", required=False, shell_complete=names)
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def configs(config: str | None, as_json: bool) -> None:
    """List the configs that come with elth, or print the one that is named.

    elth plan, run and the others take their names, where no file is called so. KEY=VALUE changes
    one; elth init --from NAME copies it. The small profile of those of the papers is scale=smoke.
    """
    from orchestrator.experiment import shipped

    if config is not None:
        click.echo(shipped.named(config).read_text(encoding="utf-8"), nl=False)
        return
    counts = shipped.trainings()
    found = {name: shipped.about(path) for name, path in shipped.shipped().items()}
    if as_json:
        told = [
            {"name": name, "trainings": counts.get(name), **about} for name, about in found.items()
        ]
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return
    table = Table()
    table.add_column("config", no_wrap=True)
    table.add_column("of", max_width=22)
    table.add_column("what it is")
    table.add_column("trainings", justify="right")
    for name, about in found.items():
        count = f"{counts[name]:,}" if name in counts else ""
        table.add_row(name, about["paper"], about["description"], count)
    out.print(table)


def _schema() -> str:
    from orchestrator.experiment.schema import schema as made

    return json.dumps(made(), indent=1, ensure_ascii=False) + "\n"


@click.command(cls=Command, example=f"elth schema > {SCHEMA}")
def schema() -> None:
    """Print the JSON schema of a config, for editors.

    With the file elth.schema.json beside a config, its first line tells an editor of it:
    "# yaml-language-server: $schema=elth.schema.json".
    """
    click.echo(_schema(), nl=False)


@click.command(cls=Command, example='elth completion bash   # eval "$(elth completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which a shell completes commands, options, configs and grids.

    In ~/.bashrc or ~/.zshrc: eval "$(elth completion bash)", or zsh. For fish: elth completion
    fish > ~/.config/fish/completions/elth.fish.
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(context.find_root().command, {}, "elth", "_ELTH_COMPLETE").source())


COMMANDS = (init, configs, schema, completion)
