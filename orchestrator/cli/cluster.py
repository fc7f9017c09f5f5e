"""The commands for a cluster: ``elth submit``, ``jobs``, ``logs``, ``stop`` and ``doctor``."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from elth.errors import ElthError
from elth.files import expanded
from orchestrator.cli.common import (
    EXIT_FAILED,
    EXIT_STOPPED,
    PLACE,
    Command,
    find_store,
    out,
    replace_option,
    store_option,
)
from orchestrator.cli.options import json_option, print_json
from orchestrator.plan.only import Only

if TYPE_CHECKING:
    from orchestrator.cluster.jobs import Job
    from orchestrator.plan.graph import Plan


def _address_option(command: Any) -> Any:
    return click.option(
        "--address",
        metavar="URL",
        help="The cluster's dashboard, as http://HEAD:8265. [default: $RAY_ADDRESS]",
    )(command)


@click.command(
    cls=Command,
    example="elth submit fig6_cifar_resnets --address http://HEAD:8265 "
    "--store http://TRACKER:5000 --storage s3://BUCKET/elth",
)
@click.argument("config", type=PLACE)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@_address_option
@click.option("--storage", metavar="DIR_OR_URL", help="As of elth run.")
@click.option("--retry-failed", is_flag=True, help="As of elth run.")
@replace_option
@click.option("--only", multiple=True, metavar="AXIS=VALUE,...", help="As of elth run.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="As of elth run.")
@click.option(
    "--notify", metavar="COMMAND", help="As of elth run; the command is run on the cluster's head."
)
@click.option("--follow/--no-follow", default=True, help="Show the log until the job has ended.")
@click.option(
    "--env", "names", multiple=True, metavar="NAME", help="A variable to pass on, hidden."
)
@click.option(
    "--python", default="python", show_default=True, help="The interpreter on the cluster."
)
@store_option
def submit(
    config: Path,
    overrides: tuple[str, ...],
    address: str | None,
    store: str | None,
    storage: str | None,
    retry_failed: bool,
    replace: bool,
    only: tuple[str, ...],
    hours: float | None,
    notify: str | None,
    follow: bool,
    names: tuple[str, ...],
    python: str,
) -> None:
    """Run CONFIG on a cluster that is elsewhere.

    The current directory is sent, without data, results and what is hidden. Variables of MLflow and
    of object stores go along, and are not shown by Ray. Give the same command again after any
    interruption, and it goes on.
    """
    from orchestrator import plan as plans
    from orchestrator.cluster.jobs import Jobs
    from orchestrator.experiment.reading import load, spelled
    from orchestrator.experiment.shipped import is_shipped
    from orchestrator.store import storage as storages
    from orchestrator.work.passing import passed

    project = Path.cwd()
    sent = is_shipped(config)  # with the elth that is there
    if not sent and not config.absolute().resolve().is_relative_to(project.resolve()):
        raise ElthError(
            f"{config} does not lie below {project}, which is what is sent to the cluster: give "
            "the command in a folder above it"
        )
    more = () if storage is None else (spelled("resources.storage", storage),)
    experiment = load(config, (*overrides, *more))
    built = plans.build(experiment)
    if (chosen := Only.parse(only)) is not None:
        chosen.of(built, experiment.name)  # refused here, and not on the cluster
    _check_sent(built, experiment.plugins, project)
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ElthError(f"the variable {missing[0]} is to be passed on, and is not set here")
    found = find_store(store)
    if found.folder is None and not found.uri.startswith("http"):
        raise ElthError(
            f"the store {found} is a database, which a cluster is not given: start an MLflow "
            "server on it and give its address by --store"
        )
    root = experiment.data.root.absolute()
    name = str(config) if sent else os.path.relpath(config, project)
    words = ["run", name, *overrides, spelled("data.root", str(root))]
    if experiment.resources.storage is not None:
        there = storages.place(experiment.resources.storage, found)
        words.append(spelled("resources.storage", there))
    words += ["--address", "auto", "--store", str(found)]
    words += ["--retry-failed"] if retry_failed else []
    words += ["--replace"] if replace else []
    words += [word for text in only for word in ("--only", text)]
    words += [] if hours is None else ["--hours", f"{hours:g}"]
    words += [] if notify is None else ["--notify", notify]
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # --store says it, without credentials
    out = [root, found.folder, None if storage is None else expanded(storage)]
    client = Jobs(address)
    job = client.submit(
        experiment.name,
        words,
        project,
        passed(names),
        python=python,
        leave_out=[path for path in out if path is not None],
    )
    click.echo(f"{job} runs on {client.address}; results go to {found}")
    _how(job, address)
    if follow:
        _follow(client, job, address)


def _check_sent(built: Plan, listed: Iterable[str], project: Path) -> None:
    """Refuse code from outside that is neither sent nor installed."""
    from elth import plugins
    from orchestrator.plan.outside import outside

    files = [Path(path) for path in listed]
    for name in {*outside(built.stages.values()).digests, *plugins.listed()}:
        files += plugins.sources(name).files.values()
    for file in files:
        if not plugins.is_installed(file) and not file.resolve().is_relative_to(project.resolve()):
            raise ElthError(
                f"{file} does not lie below {project}, which is what is sent to the cluster: put "
                "it there, or install it on the cluster's machines"
            )


@click.command(
    cls=Command,
    example="elth jobs --address http://HEAD:8265",
)
@_address_option
def jobs(address: str | None) -> None:
    """List the jobs of a cluster, the latest first."""
    from orchestrator.cluster.jobs import Jobs
    from orchestrator.plan.costs import duration

    table = Table()
    for column in ("job", "state", "began", "took"):
        table.add_column(column)
    for one in Jobs(address).all():
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.began)) if one.began else ""
        took = duration((one.ended or time.time()) - one.began) if one.began else ""
        table.add_row(one.id, one.state.lower(), began, took)
    out.print(table)


@click.command(
    cls=Command,
    example="elth logs fig6-1c2d3e4f --address http://HEAD:8265 --follow",
)
@click.argument("job")
@_address_option
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
def logs(job: str, address: str | None, follow: bool) -> None:
    """Show what a job has written."""
    from orchestrator.cluster.jobs import Jobs

    client = Jobs(address)
    if follow:
        _follow(client, job, address)
    else:
        click.echo(client.log(job), nl=False)


@click.command(
    cls=Command,
    example="elth stop fig6-1c2d3e4f --address http://HEAD:8265",
)
@click.argument("job")
@_address_option
def stop(job: str, address: str | None) -> None:
    """Stop a job: its trials write a checkpoint, and submitting the same again goes on."""
    from orchestrator.cluster.jobs import Jobs
    from orchestrator.work.stopping import GRACE_SECONDS

    client = Jobs(address)
    if not client.stop(job):
        click.echo(f"{job} had ended: {client.get(job).state.lower()}")
        return
    click.echo(f"{job} is asked to stop; its trials write a checkpoint first", err=True)
    found = client.wait(job, GRACE_SECONDS + 120)
    click.echo(f"{job}: {found.state.lower()}; the same elth submit goes on from there")


@click.command(
    cls=Command,
    example="elth doctor fig6_cifar_resnets --address auto",
)
@click.argument("config", type=PLACE, required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="The Ray cluster, as of elth run. [default: $RAY_ADDRESS]",
)
@click.option("--free", is_flag=True, help="Remove placement groups that dead drivers left.")
@click.option(
    "--restore", is_flag=True, help="Take back what elth needs and was deleted in MLflow's pages."
)
@store_option
@json_option
def doctor(
    config: Path | None,
    overrides: tuple[str, ...],
    store: str | None,
    address: str | None,
    free: bool,
    restore: bool,
    as_json: bool,
) -> None:
    """Look for what is wrong around a run of CONFIG, and say what to do.

    Exit code 0 if nothing is, 3 otherwise.
    """
    from orchestrator.cluster import doctor as doctors
    from orchestrator.cluster import machines
    from orchestrator.experiment.reading import load

    experiment = None if config is None else load(config, overrides)
    address = machines.address_of(address)
    found, first = None, []
    try:
        found = find_store(store)
    except ElthError as error:  # the rest may be well
        first = [doctors.Finding(about="store", what=str(error), do="see what the message says")]
    findings = []
    examined = doctors.examine(found, experiment, address, free=free, restore=restore)
    for one in itertools.chain(first, examined):
        findings.append(one)
        if not as_json:
            mark = "ok   " if one.is_well else "WRONG"
            click.echo(f"{mark}  {one.about}: {one.what}")
            if not one.is_well:
                click.echo(f"       -> {one.do}")
    wrong = sum(not one.is_well for one in findings)
    if as_json:
        told = [{"about": f.about, "well": f.is_well, "what": f.what, "do": f.do} for f in findings]
        print_json({"wrong": wrong, "findings": told})
    else:
        click.echo("Nothing is wrong." if not wrong else f"{wrong} things are wrong.")
    if wrong:
        sys.exit(EXIT_FAILED)


COMMANDS = (submit, jobs, logs, stop, doctor)


def _follow(client: Any, job: str, address: str | None) -> None:
    def write(text: str) -> None:
        click.echo(text, nl=False)

    try:
        found: Job = client.follow(job, write)
    except KeyboardInterrupt:
        click.echo(f"\n{job} goes on.", err=True)
        _how(job, address)
        sys.exit(EXIT_STOPPED)
    click.echo(f"{job}: {found.state.lower()}", err=True)
    if found.state == "STOPPED":
        sys.exit(EXIT_STOPPED)
    if found.state == "FAILED":
        if found.code is None:
            click.echo(f"elth: {found.message.strip()}", err=True)
        sys.exit(found.code if found.code and found.code > 0 else 1)


def _how(job: str, address: str | None) -> None:
    given = f" --address {address}" if address else ""
    click.echo(f"  elth logs {job}{given} --follow\n  elth stop {job}{given}", err=True)
