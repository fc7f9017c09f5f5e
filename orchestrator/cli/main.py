"""The command line: ``elth plan``, ``run``, ``status``, ``report``, ``ticket``, ``ui`` and more.

Exit codes: 0 done, 2 a request that cannot be met, 3 stages failed or are damaged, 124 the hours of
``elth run --hours`` were over, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import io
import sys

import click

from elth.errors import ElthError
from orchestrator.cli import (
    analysing,
    beginning,
    bundles,
    cluster,
    data,
    differing,
    flops,
    housekeeping,
    lists,
    planning,
    results,
    running,
    status,
    ticket,
)
from orchestrator.cli.common import EXIT_REFUSED, EXIT_STOPPED, EXIT_TIME


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="elth")
def cli() -> None:
    """Find lottery tickets once, stretch and squeeze them into other networks, compare."""


for family in (
    *(beginning, planning, running, status, results, flops, differing, housekeeping, bundles),
    *(lists, analysing, data, ticket, cluster),
):
    for command in family.COMMANDS:
        cli.add_command(command)


def _is_of_the_store(error: Exception) -> bool:
    """Whether it comes from MLflow or the disk and not from a mistake of this program."""
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return True
    return any(kind.__name__ == "MlflowException" for kind in type(error).__mro__)


def _is_time_over(error: BaseException) -> bool:
    """Whether it is the end of ``--hours``; click has it as the cause of an error of its own."""
    if "orchestrator.work.stopping" not in sys.modules:
        return False
    from orchestrator.work.stopping import TimeOverError

    return isinstance(error, TimeOverError) or isinstance(error.__cause__, TimeOverError)


def _print_anything() -> None:
    """Have ``?`` printed for what the terminal's encoding lacks, and never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def main() -> None:
    """Run the command line; a refused request is one line and exit code 2."""
    _print_anything()
    try:
        cli(standalone_mode=False)
    except ElthError as error:
        click.echo(f"elth: error: {error}", err=True)
        sys.exit(EXIT_REFUSED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(EXIT_REFUSED)
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        click.echo(f"elth: error: {error.format_message()}{hint}", err=True)
        sys.exit(EXIT_REFUSED)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        if _is_time_over(error):
            click.echo(
                "elth: stopped, as the hours that were given are over; the same command goes on "
                "from what is tracked",
                err=True,
            )
            sys.exit(EXIT_TIME)
        click.echo("elth: stopped; the same command goes on from what is tracked", err=True)
        sys.exit(EXIT_STOPPED)
    except UnicodeEncodeError as error:  # of a file's name: texts of ours are UTF-8 everywhere
        lacking = error.object[error.start : error.end]
        click.echo(
            f"elth: error: names of files are in {error.encoding} by this locale, which has no "
            f"{lacking!a}: set LC_ALL=C.UTF-8, or PYTHONUTF8=1",
            err=True,
        )
        sys.exit(EXIT_REFUSED)
    except Exception as error:
        if not _is_of_the_store(error):
            raise
        from orchestrator.store.away import plain

        click.echo(f"elth: error: {plain(error)}", err=True)
        sys.exit(EXIT_REFUSED)
