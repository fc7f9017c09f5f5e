"""Recipes in a file: by name, by fields, or by a base with fields that differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, create_model

from elth import plugins
from elth.apart import apart
from elth.errors import ElthError, unknown
from elth.recipes import RECIPES, Recipe, Step
from elth.remembered import remembered
from orchestrator.experiment.basics import Number, Whole, as_step


def _recipe_model() -> type[BaseModel]:
    """The fields of ``elth.Recipe`` as a section, so that they are stated once."""
    hints = get_type_hints(Recipe)
    step = Annotated[Step, BeforeValidator(as_step)]
    types = {Step: step, tuple[Step, ...]: tuple[step, ...], int: Whole, float: Number}
    return create_model(
        "RecipeSection",
        __config__=ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True),
        **{  # type: ignore[call-overload]
            f.name: (
                types.get(hints[f.name], hints[f.name]),
                ... if f.default is dataclasses.MISSING else f.default,
            )
            for f in dataclasses.fields(Recipe)
        },
    )


RECIPE_MODEL = _recipe_model()


def _recipe(name: str) -> Recipe:
    """A recipe by its name, ours or from outside, as ``my_lab.recipes:fast``.

    Raises:
        ElthError: there is none of this name.
    """
    if name in RECIPES:
        return RECIPES[name]
    if not plugins.is_reference(name) and not plugins.listed():
        raise unknown("recipe", name, RECIPES)
    return Recipe.of(remembered(recipe_fields, name, plugins.in_use(), also=plugins.state(name)))


def recipes_by_name() -> dict[str, Recipe]:
    """The recipes that may be named: ours, and those that listed modules give."""
    if not plugins.listed():
        return dict(RECIPES)
    names = apart(recipe_names, plugins.in_use())
    return {**RECIPES, **{name: _recipe(name) for name in names}}


def recipe_names(paths: Sequence[str]) -> list[str]:
    """Names of recipes that modules from outside give; they are imported."""
    plugins.use(paths)
    return list(plugins.registered("RECIPES"))


def recipe_fields(name: str, paths: Sequence[str]) -> dict[str, Any]:
    """The fields of a recipe from outside; its module is imported."""
    plugins.use(paths)
    found = plugins.named("RECIPES", name, "recipe", RECIPES)
    if not isinstance(found, Recipe):
        raise ElthError(f"{name} is no Recipe: found {found!r}")
    return found.full()


def to_recipe(value: Any) -> Recipe:
    """A name of a recipe, or its fields, or ``base`` with the fields that differ.

    ``stretch`` multiplies the steps of what all that gives (``Recipe.stretched``).
    """
    if isinstance(value, Recipe):
        return value
    if isinstance(value, str):
        value = {"base": value}
    if not isinstance(value, dict):
        raise ElthError(f"a recipe is a name or a mapping, found {value!r}")
    fields = dict(value)
    stretch = fields.pop("stretch", 1)
    base: dict[str, Any] = {}
    if "base" in fields:
        name = fields.pop("base")
        known = _recipe(str(name))
        base = {f.name: getattr(known, f.name) for f in dataclasses.fields(Recipe)}
    checked = RECIPE_MODEL.model_validate({**base, **fields})
    found = Recipe(**{f.name: getattr(checked, f.name) for f in dataclasses.fields(Recipe)})
    return found.stretched(stretch)
