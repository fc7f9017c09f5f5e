"""Code from outside: modules of users, found without being run and known by a digest.

A config names what is in them as ``my_lab.nets:wide(k=2)``, where ``my_lab.nets`` is a module that
Python finds, or a file that the config lists under ``plugins`` (``./nets.py`` is the module
``nets``). What a listed module holds in dicts by the names of ours (``NETWORKS = {"wide": wide}``)
may be named without it.

Results depend on such code, so a key holds its version: what its author declares for an object
(``version``), else a digest of the bytes of its file and of every file that it imports, which
imports are followed by reading them: through all that is neither of Python nor installed. What a
module imports by a name that it works out is not seen.
"""

from __future__ import annotations

import ast
import contextlib
import contextvars
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from elth import meanings
from elth.errors import ElthError, unknown
from elth.files import expanded

T = TypeVar("T")

OURS = ("elth", "orchestrator")
"""Packages whose files are no part of a digest: what they mean has numbers of its own."""
_INSTALLED = ("site-packages", "dist-packages")

_VERSION = "__elth_version__"

_in_use: dict[str, Path] = {}
"""The listed modules of this process, and where they are."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a module is made of."""

    files: Mapping[str, Path]
    """Its file and those that it imports, by the names of their modules."""
    packages: tuple[str, ...]
    """Installed packages that they import."""
    digest: str
    """sha256 of names and contents of the files."""


def version(number: str | int) -> Callable[[T], T]:
    """Declare the version of a function that results depend on, in place of its files' digest.

    Raise it whenever the function comes to mean something else; results of before are then done
    again, and those of an edit that means nothing are not::

        @elth.version(2)
        def wide(shape, *, k: int = 1): ...
    """

    def declare(function: T) -> T:
        setattr(function, _VERSION, str(number))
        return function

    return declare


def declared(thing: object) -> str:
    """The version that a thing declares, or nothing."""
    return str(getattr(thing, _VERSION, ""))


def known_as(told: Mapping[str, Any]) -> str:
    """The version of a thing from outside, as keys hold it; nothing for ours.

    Args:
        told: its ``module``, and the ``version`` that it declares, if any; ours have neither.
    """
    if "module" not in told:
        return ""
    if told["version"]:
        return f"{told['module']}:{told['version']}"
    return f"sha256:{sources(told['module']).digest}"


def is_reference(name: str) -> bool:
    """Whether a name is that of something in a module: ``my_lab.nets:wide``."""
    return ":" in name


def use(paths: Iterable[str | Path]) -> None:
    """List modules of this process by their files or package folders.

    Their folders are looked in after all others that Python knows.

    Raises:
        ElthError: there is no such file, it is no module, or its name is another module's.
    """
    for given in paths:
        path = expanded(given).absolute()
        is_package = (path / "__init__.py").is_file()
        if not path.exists():
            where = "" if str(path) == str(given) else f" (looked for {path})"
            raise ElthError(f"there is no plugin {given}{where}")
        if not is_package and path.suffix != ".py":
            raise ElthError(
                f"the plugin {given} is no module: name a file as ./nets.py, or a folder with "
                "__init__.py in it"
            )
        name = path.name if is_package else path.stem
        if not name.isidentifier():
            raise ElthError(f"the plugin {given} cannot be imported: {name} is no name of Python's")
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
            importlib.invalidate_caches()
        own = path / "__init__.py" if is_package else path
        found = find(name)
        if found is None or not found.samefile(own):
            raise ElthError(
                f"the plugin {given} has the name of another module, {name}"
                f"{f' ({found})' if found else ''}: give its file another name"
            )
        _in_use[name] = path


def in_use() -> tuple[str, ...]:
    """The paths of the listed modules, as ``use`` takes them, for another process."""
    return tuple(str(path) for path in _in_use.values())


def listed() -> tuple[str, ...]:
    """The names of the listed modules."""
    return tuple(_in_use)


def find(module: str) -> Path | None:
    """The file of a module, without running anything; None if there is none."""
    *_, last = [None, *_found(module)]
    if last is None or last.name != module or not last.has_location:
        return None
    return Path(str(last.origin))


@functools.cache
def sources(module: str) -> Sources:
    """What a module is made of, as it lies on disk; read once in a process.

    Raises:
        ElthError: there is no such module, or a file of it cannot be read.
    """
    if find(module) is None:
        raise ElthError(
            f"no module '{module}' is found: install it, set PYTHONPATH, or list its file under "
            "plugins, as plugins: [./nets.py]"
        )
    files: dict[str, Path] = {}
    packages: set[str] = set()
    own = module.partition(".")[0]
    waiting = [module]
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if name in files or top in OURS:
            continue
        for spec in _found(name):
            if spec.name in files or not spec.has_location or spec.origin is None:
                continue
            path = Path(spec.origin)
            if _is_of_python(path):
                break
            if is_installed(path) and top != own:  # an installed package that names it is its own
                packages.add(top)
                break
            files[spec.name] = path
            if path.suffix == ".py":
                waiting += _imports(spec, path)
    if not files:
        raise ElthError(f"'{module}' is a module of Python's own: give the file another name")
    sha = hashlib.sha256()
    for name, path in sorted(files.items()):
        content = path.read_bytes()
        sha.update(f"{name} {len(content)}\n".encode())
        sha.update(content)
    return Sources(files=files, packages=tuple(sorted(packages)), digest=sha.hexdigest())


def get(reference: str) -> Any:
    """What a reference names; its module is imported.

    Raises:
        ElthError: there is no such module, importing it fails, or it has no such name.
    """
    module, _, name = reference.partition(":")
    content = vars(load(module))
    if name not in content:
        public = [
            one
            for one, value in content.items()
            if not one.startswith("_")
            and not inspect.ismodule(value)
            and getattr(value, "__module__", module) == module
        ]
        raise unknown(f"name in module {module}", name, public)
    return content[name]


def load(module: str) -> Any:
    """Import a module.

    Raises:
        ElthError: there is none, or it fails, with the reason.
    """
    sources(module)  # refuses what is not there, before anything is run
    try:
        return importlib.import_module(module)
    except ElthError:
        raise
    except (Exception, SystemExit) as error:
        raise ElthError(f"importing '{module}' ({find(module)}) fails: {reason(error)}") from error


def registered(kind: str) -> dict[str, str]:
    """Names that the listed modules give: of each the reference. The modules are imported.

    Args:
        kind: the dict in which a module holds them, as ``NETWORKS``.

    Raises:
        ElthError: two modules give one name, or one gives no dict.
    """
    found: dict[str, str] = {}
    for module in listed():
        given = getattr(load(module), kind, {})
        if not isinstance(given, Mapping):
            raise ElthError(f"{kind} of '{module}' must be a dict of names, found {given!r}")
        for name in given:
            if name in found:
                other = found[name].partition(":")[0]
                raise ElthError(f"both '{other}' and '{module}' name '{name}' in {kind}")
            found[str(name)] = f"{module}:{kind}"
    return found


def named(kind: str, name: str, what: str, ours: Iterable[str] = ()) -> Any:
    """What a reference, or a name that a listed module gives, stands for.

    Args:
        kind: the dict in which a module holds such names, as ``NETWORKS``.
        name: the reference or the name.
        what: what it is, for the message, as ``network``.
        ours: names that there are besides, for the message.

    Raises:
        ElthError: there is no such thing.
    """
    if is_reference(name):
        return get(name)
    places = registered(kind)
    if name not in places:
        raise absent(what, name, [*ours, *places])
    return get(places[name])[name]


def absent(what: str, name: str, known: Iterable[str]) -> ElthError:
    """The error for a name that nothing has; of a network, as tickets have, with how to name one.

    Args:
        what: what it would be, as ``network``.
        name: the name.
        known: the names that there are.
    """
    error = unknown(what, name, known)
    if what != "network" or listed():
        return error
    return ElthError(
        f"{error}; one of your own is named as module:function, or by a file that is listed: as "
        "plugins: [FILE] of a config, --plugin FILE of a command, elth.plugins.use([FILE]) in "
        "Python"
    )


def module_of(kind: str, name: str) -> str:
    """The module that ``named`` finds a thing in."""
    place = name if is_reference(name) else registered(kind)[name]
    return place.partition(":")[0]


def keywords(
    function: Callable[..., Any], kind: str, given: Collection[str] = ()
) -> dict[str, Any]:
    """What a function tells of its options, which are its keywords, as JSON values.

    Args:
        function: the function.
        kind: what it makes, for the messages.
        given: keywords that are no options.

    Returns:
        The ``defaults`` of its options, the ``words`` that an option may be, and the ``meanings``
        of those of which something is said.

    Raises:
        ElthError: they cannot be read, or one has no default.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
        hints, said = get_type_hints(function), meanings.of_keywords(function)
    except Exception as error:  # annotations are code
        name = getattr(function, "__name__", function)
        raise ElthError(
            f"the options of the {kind} {name} cannot be read: {type(error).__name__}: {error}"
        ) from error
    for p in parameters:
        plain = p.default is p.empty or isinstance(p.default, int | float | str)
        if p.kind is p.KEYWORD_ONLY and p.name not in given and not plain:
            raise ElthError(
                f"option {p.name} of the {kind} {getattr(function, '__name__', function)} is "
                f"{p.default!r} when nothing is said; expected a number, true or false, or a word"
            )
    parameters = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in given]
    missing = [p.name for p in parameters if p.default is p.empty]
    if missing:
        raise ElthError(
            f"option {missing[0]} of the {kind} {getattr(function, '__name__', function)} has no "
            "default: every keyword of it is an option, and needs one"
        )
    return {
        "defaults": {p.name: p.default for p in parameters},
        "words": {
            key: list(get_args(hint)) for key, hint in hints.items() if get_origin(hint) is Literal
        },
        "meanings": {p.name: said[p.name] for p in parameters if p.name in said},
    }


_closed = contextvars.ContextVar("closed", default=False)


@contextlib.contextmanager
def closed() -> Iterator[None]:
    """Let nothing be looked for in modules that are not listed: for what a store alone names."""
    token = _closed.set(True)
    try:
        yield
    finally:
        _closed.reset(token)


def state(name: str = "") -> str:
    """A digest of the files of all listed modules, and of those of the module of a reference.

    Whoever asks a module for something asks for this first.

    Raises:
        ElthError: there is no such module, or it is not to be looked for now (``closed``).
    """
    module = name.partition(":")[0]
    if _closed.get() and is_reference(name) and module.partition(".")[0] not in _in_use:
        raise ElthError(f"'{module}' is code from outside, which is not run to read a store")
    needed = [*([module] if is_reference(name) else []), *listed()]
    told = [sources(one).digest for one in needed]
    told += [_version_of(package) for one in needed for package in sources(one).packages]
    return hashlib.sha256(" ".join(told).encode()).hexdigest()


@functools.cache
def _version_of(package: str) -> str:
    """An installed package with its version, where it is known by the name of its module."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"{package}=={importlib.metadata.version(package)}"
    return package


def _found(module: str) -> Iterator[ModuleSpec]:
    """Where a module and the packages around it lie, outermost first, as far as they are there."""
    places: Any = None
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        name, spec = ".".join(parts[:count]), None
        for finder in sys.meta_path:
            with contextlib.suppress(Exception):  # a finder of somebody's own
                spec = spec or finder.find_spec(name, places)
        if spec is None:
            return
        yield spec
        places = spec.submodule_search_locations
        if places is None:
            return


def is_installed(path: Path) -> bool:
    """Whether a file is of an installed package or of Python itself."""
    return any(part in _INSTALLED for part in path.parts) or _is_of_python(path)


def reason(error: BaseException) -> str:
    """An error of somebody else's code in a line: its kind, what it says, and where in that code.

    The place is the innermost line that is neither of ours, nor of Python, nor installed.
    """
    text = f"{type(error).__name__}: {error}"
    ours = Path(__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not (frame.filename.startswith("<") or is_installed(path) or ours in path.parents):
            return f"{text} (line {frame.lineno} of {path.name}, in {frame.name})"
    return text


def _is_of_python(path: Path) -> bool:
    """Whether a file is of Python itself."""
    library = Path(sysconfig.get_paths()["stdlib"])
    return library in path.parents and not any(part in _INSTALLED for part in path.parts)


def _imports(spec: ModuleSpec, path: Path) -> list[str]:
    """Modules that a file names in its imports, wherever they stand."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise ElthError(f"cannot read {path}: {error}") from error
    package = spec.name if spec.submodule_search_locations is not None else spec.parent or ""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
            if any(alias.name == "*" for alias in node.names):
                names += _below(base)
    names = [name for name in names if name]
    if not package:
        for name in names:
            _check_beside(name.partition(".")[0], path)
    return names


def _below(package: str) -> list[str]:
    """The modules of a package, any of which a star may import."""
    *_, last = [None, *_found(package)]
    places = last.submodule_search_locations if last is not None else None
    files = (path for place in places or () for path in sorted(Path(place).glob("*.py")))
    return [f"{package}.{path.stem}" for path in files if path.stem != "__init__"]


def _check_beside(name: str, path: Path) -> None:
    """Refuse a helper beside a file, of which another one of that name is imported instead.

    Raises:
        ElthError: two folders hold one name, and the first that is listed is taken.
    """
    for beside in (path.parent / f"{name}.py", path.parent / name / "__init__.py"):
        found = find(name) if beside.is_file() else None
        if found is not None and not found.samefile(beside):
            raise ElthError(
                f"{path} imports '{name}', which is {found} here and not {beside}: give one of "
                "them another name"
            )
