"""The JSON schema of a config, from the classes that check it: for editors, and for the reference.

It is made of the same fields as the check itself, so it has every key, its type, its bounds and the
words that stand below it in the source. It knows less than ``load``: what one key must be because
of another (a source for ``ett`` alone, a round that is not beyond the last) only that says. Where a
file lists no ``plugins``, the names of methods, networks, datasets and recipes are ours, or have a
module before a colon.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_type_hints

from pydantic.json_schema import GenerateJsonSchema

from elth import criteria, data, dynamic, meanings
from elth.measures import BATCH_NORMS, MEASURES, PAIR, PARTS
from elth.networks import names as network_names
from elth.recipes import (
    AUGMENTATIONS,
    DECAYS,
    OPTIMISERS,
    PRECISIONS,
    RECIPES,
    SCHEDULES,
    Recipe,
    Step,
)
from elth.specs import Choice
from orchestrator.experiment.basics import NAME, as_number, as_step, as_tuple
from orchestrator.experiment.claims import RELATIONS
from orchestrator.experiment.methods import METHODS
from orchestrator.experiment.papers import LAYOUTS
from orchestrator.experiment.pruning import Pruning
from orchestrator.experiment.recipes import RECIPE_MODEL, to_recipe
from orchestrator.experiment.sections import Experiment

Json = dict[str, Any]

DIALECT = "http://json-schema.org/draft-07/schema#"
"""What editors know: draft 7 is what the YAML language server reads."""
_STEP: Json = {"type": "string", "pattern": "^\\s*[0-9]+\\s*(ep|it)\\s*$"}
_NUMBER_AS_TEXT: Json = {"type": "string", "pattern": "^[-+]?[0-9.]+[eE][-+]?[0-9]+$"}
_ANYTHING: Json = {}
_WORDS: Mapping[str, tuple[str, ...]] = {
    "optimiser": OPTIMISERS,
    "schedule": SCHEDULES,
    "augment": AUGMENTATIONS,
    "precision": PRECISIONS,
    "decay": DECAYS,
}
"""Fields of a recipe that are words: its class checks them itself."""


class _Generate(GenerateJsonSchema):
    """Pydantic's own, told what goes into the validators that stand before a field."""

    schema_dialect = DIALECT

    def function_before_schema(self, schema: Any) -> Json:
        form = _FORMS.get(schema["function"]["function"])
        if form is None or "json_schema_input_schema" in schema:
            return super().function_before_schema(schema)
        return form(self, schema["schema"])

    def model_schema(self, schema: Any) -> Json:
        found = super().model_schema(schema)
        cls = schema["cls"]
        for name, text in meanings.of_fields(Recipe if cls is RECIPE_MODEL else cls).items():
            if name in found.get("properties", {}):
                found["properties"][name]["description"] = text
        if cls.__doc__ and cls is not RECIPE_MODEL:
            found["description"] = meanings.in_line(cls.__doc__.partition("\n\n")[0])
        return found

    def tuple_schema(self, schema: Any) -> Json:
        if "variadic_item_index" in schema:
            return super().tuple_schema(schema)
        items = [self.generate_inner(item) for item in schema["items_schema"]]
        return {"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)}

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def one_or_more(self, inner: Any) -> Json:
        array = self.generate_inner(inner)
        return {"anyOf": [array["items"], array]}

    def number(self, inner: Any) -> Json:
        return {"anyOf": [self.generate_inner(inner), _NUMBER_AS_TEXT]}

    def step(self, inner: Any) -> Json:
        return dict(_STEP)

    def recipe(self, inner: Any) -> Json:
        """By its name, or by fields: all of them, or those that differ from a base."""
        section = self.generate_inner(RECIPE_MODEL.__pydantic_core_schema__)
        return {"anyOf": [{"type": "string"}, section]}


_FORMS: Mapping[Callable[..., Any], Callable[[_Generate, Any], Json]] = {
    as_tuple: _Generate.one_or_more,
    as_number: _Generate.number,
    as_step: _Generate.step,
    to_recipe: _Generate.recipe,
}


_TOLD = {"_as_between", "Baseline._from_name", "Experiment._patches", "Stop._spelled"}
"""The others: what they take besides is said in ``schema``, or nothing."""


def schema() -> Json:
    """The JSON schema of a config."""
    found = Experiment.model_json_schema(schema_generator=_Generate)
    defs: Json = found["$defs"]
    recipe = defs[RECIPE_MODEL.__name__]
    _recipe(recipe)
    _analysis(defs["Analysis"])
    _claim(defs["Claim"])
    defs["Paper"]["properties"]["layout"] |= _named(LAYOUTS)
    defs["Pruning"]["properties"]["stop"]["anyOf"].append({"const": "collapsed"})
    properties = found["properties"]
    properties["variants"] |= {
        "propertyNames": {"pattern": f"^{NAME}$"},
        "additionalProperties": {"$ref": "#/$defs/Variant"},
    }
    properties["criteria"] |= _criteria()
    defs["Variant"] = _variant(recipe, defs[Pruning.__name__])
    defs["Names"] = _names()
    defs["Scale"] = {
        "description": "What differs at this size; a mapping is merged key by key, a recipe and "
        "all else replaced.",
        "type": "object",
        "properties": {
            **{name: value for name, value in properties.items() if name != "paper"},
            "paper": {"type": "object"},
            "replace": {
                "description": "Which network or dataset stands in for one, wherever grid, paper "
                "and recipes name it.",
                "type": "object",
                "additionalProperties": {"type": "string"},
            },
        },
        "additionalProperties": False,
    }
    properties["scales"] = {
        "description": "Profiles of another size by their names: `scale=smoke` on the command line "
        "takes one.",
        "type": "object",
        "additionalProperties": {"$ref": "#/$defs/Scale"},
    }
    found["required"].remove("name")  # else that of the file
    return {
        "$schema": DIALECT,
        "title": "A config of elth",
        **{key: value for key, value in found.items() if key not in ("$schema", "title", "$defs")},
        "if": {"not": {"required": ["plugins"]}},
        "then": {
            "allOf": [
                {"$ref": "#/$defs/Names"},
                {"properties": {"scales": {"additionalProperties": {"$ref": "#/$defs/Names"}}}},
            ]
        },
        "$defs": defs,
    }


def _recipe(section: Json) -> None:
    """A recipe has a base, or a length and a rewind point; and its words."""
    for name, words in _WORDS.items():
        section["properties"][name] |= {"enum": list(words)}
    section["properties"] = {
        "base": {"type": "string", "description": "The recipe whose fields hold where none is."},
        "stretch": {
            "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}],
            "default": 1,
            "description": "Length, milestones and warm-up are multiplied by it.",
        },
        **section["properties"],
    }
    for field in dataclasses.fields(Recipe):
        if isinstance(field.default, Step):
            section["properties"][field.name]["default"] = str(field.default)
    required = section.pop("required")
    section["anyOf"] = [{"required": ["base"]}, {"required": required}]
    section["description"] = meanings.in_line((Recipe.__doc__ or "").partition("\n")[0])


def _analysis(section: Json) -> None:
    """Beside its own keys an analysis has the settings of its measure, and no others."""
    own = list(section["properties"])
    every: Json = {name: {} for one in MEASURES.values() for name in settings_of(one.settings)}
    section["properties"] |= every  # what each may be depends on the measure
    section["properties"]["measure"]["enum"] = list(MEASURES)
    section["additionalProperties"] = False
    section["allOf"] = [
        {
            "if": {"properties": {"measure": {"const": name}}},
            "then": {
                "properties": settings_of(measure.settings),
                "propertyNames": {"enum": [*own, *settings_of(measure.settings)]},
                **(
                    {"required": ["between"]}
                    if measure.looks_at == PAIR
                    else {"not": {"required": ["between"]}}
                ),
            },
        }
        for name, measure in MEASURES.items()
    ]


def _claim(section: Json) -> None:
    """Beside its own keys a claim has a method and its relation; a baseline may be a word."""
    told = "; ".join(f"`{name}`, it {text} what `of` names" for name, text in RELATIONS.items())
    relation = {"enum": list(RELATIONS), "description": f"What is claimed of the method: {told}."}
    section["properties"] |= dict.fromkeys(METHODS, relation)
    section["additionalProperties"] = relation  # of a method from outside
    one = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Baseline"}]}
    of = {"type": "array", "items": one, "minItems": 1}
    section["properties"]["of"]["anyOf"] = [*one["anyOf"], of]


def settings_of(cls: type[Any]) -> Json:
    """The settings of a measure as properties."""
    words = {"data": PARTS, "batch_norm": BATCH_NORMS}
    texts, hints = meanings.of_fields(cls), get_type_hints(cls)
    found: Json = {}
    for field in dataclasses.fields(cls):
        value = _of_default(field.default)
        if hints[field.name] == int | None:
            value = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}
        if field.name in words:
            value = {"enum": list(words[field.name])}
        text = {"description": texts[field.name]} if field.name in texts else {}
        found[field.name] = {**value, "default": field.default, **text}
    return found


def choice(known: Choice) -> Json:
    """An option of a network or dataset, or a setting of a criterion, as a property."""
    value = _of_default(known.default)
    if known.words:
        value = {"enum": list(known.words)}
    elif value == {"type": "integer"}:
        value["minimum"] = known.least
    return {**value, "default": known.default, "description": known.about}


def _of_default(default: Any) -> Json:
    """What a value may be, by the type of its default."""
    if isinstance(default, bool):
        return {"type": "boolean"}
    if isinstance(default, int):
        return {"type": "integer"}
    if isinstance(default, float):
        return {"anyOf": [{"type": "number"}, _NUMBER_AS_TEXT]}
    if isinstance(default, str):
        return dict(_STEP) if re.fullmatch(_STEP["pattern"], default) else {"type": "string"}
    return dict(_ANYTHING)


_AT = {"rewind": "of the rewind point", "init": "of before any training"}
"""Which weights are scored, or sparse training starts from; and how they are read."""


@functools.cache
def criterion_settings() -> Mapping[str, Mapping[str, Choice]]:
    """The settings of our criteria and methods of sparse training."""
    found: dict[str, Mapping[str, Choice]] = {}
    for method in METHODS.values():
        name = method.criterion
        if not name or name in found:
            continue
        if name in dynamic.METHODS:
            known, at, about = dynamic.choices(name), "init", "The weights that it starts from"
        else:
            known, at, about = criteria.choices(name), "rewind", "The weights that are scored"
        about += f": {', or '.join(f'`{one}`, those {told}' for one, told in _AT.items())}."
        found[name] = {**known, "at": Choice(default=at, about=about, words=tuple(_AT))}
    return found


def _criteria() -> Json:
    properties: Json = {
        name: {
            "type": "object",
            "properties": {key: choice(one) for key, one in known.items()},
            "additionalProperties": False,
            "description": METHODS[name].about,
        }
        for name, known in criterion_settings().items()
    }
    return {"properties": properties, "additionalProperties": {"type": "object"}}


def _variant(recipe: Json, pruning: Json) -> Json:
    """A patch by dotted paths, as `recipe.batch_size`, or by mappings."""
    found: Json = {}
    for part, section in (("recipe", recipe), ("pruning", pruning)):
        for name, value in section["properties"].items():
            if (part, name) not in (("recipe", "base"), ("pruning", "stop")):
                found[f"{part}.{name}"] = value
    return {
        "description": "What differs, by paths as `recipe.batch_size`; a recipe with a base takes "
        "the place of the whole.",
        "type": "object",
        "minProperties": 1,
        "properties": {
            "recipe": {"type": "object"},
            "recipes": {"type": "object"},
            "pruning": {"type": "object"},
            "criteria": {"type": "object"},
            **found,
        },
        "patternProperties": {"^(recipes|criteria)\\.": dict(_ANYTHING)},
        "additionalProperties": False,
    }


def _named(names: Iterable[str]) -> Json:
    """One of ours, or of a module, as `my_lab.nets:wide`."""
    return {"anyOf": [{"enum": list(names)}, {"type": "string", "pattern": ":"}]}


def _spec(names: Iterable[str]) -> Json:
    """The same with options: `resnet20(width=8)`."""
    ours = "|".join(re.escape(name) for name in names)
    with_options = {"type": "string", "pattern": f"^\\s*({ours})\\s*\\(|:"}
    return {"anyOf": [{"enum": list(names)}, with_options]}


def _many(one: Json) -> Json:
    return {"if": {"type": "array"}, "then": {"items": one}, "else": one}


def _names() -> Json:
    """That what is named is there, where no module of one's own may have named it."""
    network, dataset = _many(_spec(network_names())), _spec(data.DATASETS)
    recipe = _named(RECIPES)
    base = {"if": {"type": "string"}, "then": recipe, "else": {"properties": {"base": recipe}}}
    entry = {
        "method": _many(_named(METHODS)),
        "network": network,
        "source": network,
        "dataset": _many(dataset),
        "source_dataset": _many(dataset),
    }
    criterion = {"anyOf": [{"enum": list(criterion_settings())}, {"pattern": ":"}]}
    return {
        "properties": {
            "dataset": dataset,
            "recipe": base,
            "recipes": {"additionalProperties": base},
            "criteria": {"propertyNames": criterion},
            "grid": {"items": {"properties": entry}},
        }
    }


def untold() -> set[str]:
    """Validators that stand before a field, of which it is not known here what they take."""
    found: set[str] = set()

    class Looking(_Generate):
        def function_before_schema(self, schema: Any) -> Json:
            function = schema["function"]["function"]
            if function not in _FORMS and "json_schema_input_schema" not in schema:
                found.add(function.__qualname__)
            return super().function_before_schema(schema)

    Experiment.model_json_schema(schema_generator=Looking)
    return found - _TOLD
