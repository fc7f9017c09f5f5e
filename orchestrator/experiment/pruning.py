"""How tickets are found: the rate and the rounds of IMP, and the ways in which they may differ."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_serializer, model_validator

from elth.errors import ElthError
from elth.recipes import Step
from orchestrator.experiment.basics import Number, Section, Whole, as_step


class Stop(Section):
    """What ends a chain of rounds before its last: nothing of it is in any key."""

    collapsed: bool = False
    """A round of which some layer has lost every weight is the last of its chain."""
    accuracy_below: float | None = Field(default=None, gt=0, le=100, strict=True)
    """A round whose test accuracy after the last epoch, in percent, is below it is the last."""

    @model_validator(mode="before")
    @classmethod
    def _spelled(cls, value: Any) -> Any:
        if value == "collapsed":
            return {"collapsed": True}
        if not isinstance(value, dict | Stop):
            raise ElthError(f"expected {_STOPS}; found {value!r}")
        return value

    @model_validator(mode="after")
    def _stops(self) -> Stop:
        if not self.collapsed and self.accuracy_below is None:
            raise ElthError(f"expected {_STOPS}; found neither")
        return self

    @model_serializer
    def _plain(self) -> str | dict[str, Any]:
        if self.accuracy_below is None:
            return "collapsed"
        collapsed = {"collapsed": True} if self.collapsed else {}
        return {**collapsed, "accuracy_below": self.accuracy_below}


_STOPS = "collapsed, or {accuracy_below: 12} for a test accuracy in percent"


class Pruning(Section):
    """Iterative magnitude pruning."""

    rate: Number = Field(default=0.2, gt=0, lt=1)
    """Fraction of the remaining weights that a round removes."""
    rounds: Whole = Field(default=13, ge=1)
    """Number of prunings; the last ticket is that of round ``rounds``."""
    stop: Stop | None = None
    """What ends a chain earlier: ``collapsed`` or ``{accuracy_below: 12}``. Never part of a key."""
    weights: Literal["rewind", "init", "trained", "finetune"] = "rewind"
    """What the weights that are left go back to after a pruning: ``rewind``, their values at the
    rewind point; ``init``, those of before any training, and all of it is done again; ``trained``,
    nothing: they stay as trained and the learning rate alone is rewound (Renda et al. 2020);
    ``finetune``, nothing either, and they are trained at the last learning rate."""
    finetune: Annotated[Step, BeforeValidator(as_step)] | None = None
    """How long each round is trained at the last learning rate, as ``10ep``."""
    one_shot: bool = False
    """Whether each level is reached from the dense network by a single pruning."""
    repel: Number = Field(default=0.0, allow_inf_nan=False)
    """Strength of the loss by which each round is repelled from the weights that earlier rounds of
    its chain came to; negative: attracted (Maene et al. 2021, section 3)."""
    repel_from: Literal["all", "previous"] = "all"
    """Whether from those of all earlier rounds, or of the one before."""
    noise: Literal["common", "round"] = "common"
    """Whether data order and augmentation are the same in all rounds, or drawn anew in each."""

    @model_validator(mode="after")
    def _is_one_way(self) -> Pruning:
        if (self.weights == "finetune") != (self.finetune is not None):
            found = "none" if self.finetune is None else f"{self.finetune}, with weights"
            found += "" if self.finetune is None else f": {self.weights}"
            raise ElthError(
                f"finetune is how long weights: finetune trains each round, as 10ep; found {found}"
            )
        if self.repel_from != "all" and not self.repel:
            raise ElthError("repel_from says what repel is from: give its strength, as repel: 2.0")
        if self.one_shot and self.repel:
            raise ElthError("repel is from earlier rounds, and one_shot has none: keep one of them")
        return self

    def plain(self) -> dict[str, Any]:
        """As JSON values; what came later is left out where it is as it always was."""
        rest = {"rate", "rounds"}
        fields = {name for name, known in type(self).model_fields.items() if name not in rest}
        usual = {n for n in fields if getattr(self, n) == type(self).model_fields[n].default}
        found = self.model_dump(mode="json", exclude=usual | {"finetune"})
        return found | ({} if self.finetune is None else {"finetune": str(self.finetune)})
