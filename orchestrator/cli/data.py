"""The commands about data: ``elth data list``, ``describe``, ``manifest`` and ``prepare``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click
from rich.table import Table

from elth.errors import ElthError
from elth.specs import written
from orchestrator.cli.common import PLACE, Command, out, plugin_option
from orchestrator.plan.costs import size_of

_LINES = 50
"""Images that are listed when something is wrong with them."""

shared_option = click.option(
    "--allow-shared", is_flag=True, help="Images of val may be in train too, byte for byte."
)
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Images at a time. [default: every processor]"
)


def _tell(line: str) -> None:
    out.print(f"note: {line}", highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _images_listed() -> Iterator[None]:
    """List all images that something is wrong with, where one line cannot name them."""
    from elth.data import ImagesError

    try:
        yield
    except ImagesError as error:
        if error.all_named:
            raise
        for image in error.images[:_LINES]:
            click.echo(image, err=True)
        if (more := len(error.images) - _LINES) > 0:
            click.echo(f"and {more:,} more", err=True)
        raise ElthError(f"{error.head}. {error.advice}") from error


@click.group()
def data() -> None:
    """List datasets, describe your own, and make a folder of images fast to read."""


@data.command(cls=Command, name="list", example="elth data list --plugin my_data.py")
@plugin_option
def data_list() -> None:
    """List the datasets; options are given as in cifar10(size=224)."""
    from elth.data import info, names, options
    from elth.networks import spell

    table = Table()
    for column in ("name", "images", "classes", "training", "test", "options"):
        table.add_column(column)
    for name in names():
        shown = ", ".join(f"{key}={spell(value)}" for key, value in options(name).items())
        if name == "folder":
            table.add_row(name, "any JPEG, PNG, WebP", "", "", "", shown)
            continue
        try:
            found = info(name)
        except ElthError:  # nothing is declared of it
            table.add_row(name, "not declared", "", "", "", shown)
            continue
        shape = f"{found.shape.channels}x{found.shape.size}x{found.shape.size}"
        sizes = (f"{found.train_size:,}", f"{found.test_size:,}")
        table.add_row(name, shape, str(found.shape.classes), *sizes, shown)
    out.print(table)


@data.command(
    cls=Command,
    name="describe",
    example="elth data describe my_data:cells --plugin my_data.py --root data",
)
@click.argument("name")
@click.option(
    "--root",
    type=PLACE,
    default=Path("data"),
    show_default=True,
    help="The folder that its function is given.",
)
@plugin_option
def data_describe(name: str, root: Path) -> None:
    """Read a dataset of your own once, and print what is to be put above its function.

    NAME is that of a function in a module, with its options if it has any. The decorator tells a
    plan what it must know; every process that reads the dataset compares it.
    """
    from elth.data import describe

    click.echo(str(describe(name, root)))


@data.command(
    cls=Command,
    name="manifest",
    example="elth data manifest data/flowers --name flowers -o flowers.json\n"
    "elth plan my.yaml 'dataset=folder(manifest=flowers.json,size=64)'",
)
@click.argument("folder", type=PLACE)
@click.option("--name", required=True, help="Its name, and that of its folder in data.root.")
@click.option("--output", "-o", type=PLACE, help="[default: NAME.json]")
@click.option(
    "--no-decode", is_flag=True, help="Read the files only: a bad image then stops a training."
)
@shared_option
@threads_option
def data_manifest(
    folder: Path,
    name: str,
    output: Path | None,
    no_decode: bool,
    allow_shared: bool,
    threads: int | None,
) -> None:
    """Look at a folder of images (train/CLASS/*, val/CLASS/*) and describe it in a file, once.

    Every image is decoded; all that cannot be are listed. The manifest is the dataset's identity:
    every run compares its folder with it.
    """
    from elth.data import make_manifest
    from orchestrator.work.progress import Counter

    output = output or Path(f"{name}.json")
    with _images_listed(), Counter(out, "images") as counter:
        manifest = make_manifest(
            folder,
            name,
            output,
            decode=not no_decode,
            allow_shared=allow_shared,
            threads=threads,
            progress=counter.update,
            tell=_tell,
        )
    sizes = ", ".join(f"{part['images']:,} {word}" for word, part in manifest["parts"].items())
    click.echo(f"{name}: {len(manifest['classes'])} classes, images: {sizes}")
    place = written(str(output))
    click.echo(f"wrote {output}; in a config: dataset: folder(manifest={place},size=64)")
    if folder.resolve().name != name:
        beside = output.parent / name
        click.echo(f"note: the folder is looked for by that name: {beside}, or {name} in data.root")


@data.command(
    cls=Command,
    name="prepare",
    example="elth data prepare data/imagenet data/imagenet256\n"
    "elth plan my.yaml 'dataset=folder(manifest=data/imagenet256/manifest.json)'",
)
@click.argument("source", type=PLACE)
@click.argument("destination", type=PLACE)
@click.option("--name", help="What the dataset is called. [default: that of DESTINATION]")
@click.option(
    "--short", default=256, show_default=True, help="Pixels of an image's shorter side, at most."
)
@click.option("--quality", default=95, show_default=True, help="Of the JPEG files, 1 to 100.")
@shared_option
@threads_option
def data_prepare(
    source: Path,
    destination: Path,
    name: str | None,
    short: int,
    quality: int,
    allow_shared: bool,
    threads: int | None,
) -> None:
    """Make a folder of large images (train/CLASS/*, val/CLASS/*) small and fast to read, once.

    Images are resized, never enlarged, and packed into shards; JPEG files that are small enough are
    kept as they are. The result is a dataset of its own. Give the same command again after any
    interruption, and it goes on; once all is done, it checks every byte.
    """
    from elth.data import prepare
    from orchestrator.work.progress import Counter

    with _images_listed(), Counter(out, "images") as counter:
        manifest = prepare(
            source,
            destination,
            name=name,
            short=short,
            quality=quality,
            allow_shared=allow_shared,
            threads=threads,
            progress=counter.update,
            tell=_tell,
        )
    sizes = ", ".join(f"{part['images']:,} {word}" for word, part in manifest["parts"].items())
    size = sum(one["bytes"] for part in manifest["parts"].values() for one in part["shards"])
    path = destination / "manifest.json"
    click.echo(
        f"{manifest['name']}: {len(manifest['classes'])} classes, images: {sizes}; {size_of(size)}"
    )
    place = written(str(path))
    click.echo(f"wrote {path}; in a config: dataset: folder(manifest={place},size=224)")


COMMANDS = (data,)
