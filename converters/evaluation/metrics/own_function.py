"""A metric that the engineer wrote: `module:name` beside the recipe, judged sample by sample like any other."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from converters.data.truth import Truth
from converters.errors import BadRecipe
from converters.evaluation.metrics.metric import Metric, Reply, Score
from converters.evaluation.metrics.tensors import mean_of
from edge_runtime.contract.ids import shown


@dataclass(slots=True)
class OwnFunction:
    """Mean over samples of `function(answer, truth)`; answer is the result of the first public output."""

    name: str
    output: str
    function: Callable[[Any, Truth], float]
    _values: list[float] = field(default_factory=list, init=False)

    def add(self, reply: Reply, truth: Truth) -> None:
        """Take one sample in. Raises: BadRecipe: the function fails or returns no number."""
        self._values.append(_number(lambda: self.function(reply.answer[self.output], truth), self.name))

    def score(self) -> Score:
        """What came out."""
        return Score(self.name, *mean_of(self._values), is_error=bool(getattr(self.function, "is_error", False)))


@dataclass(slots=True)
class OwnClass:
    """What an object says after `add(answer, truth)` for every sample, by `score()`: for metrics that are no mean."""

    name: str
    output: str
    judge: Any
    _count: int = field(default=0, init=False)

    def add(self, reply: Reply, truth: Truth) -> None:
        """Take one sample in. Raises: BadRecipe: the object fails."""
        self._count += 1
        _calling(lambda: self.judge.add(reply.answer[self.output], truth), self.name)

    def score(self) -> Score:
        """What came out. Raises: BadRecipe: the object fails or returns no number."""
        value = _number(self.judge.score, self.name)
        return Score(self.name, value, self._count, is_error=bool(getattr(self.judge, "is_error", False)))


def own_metric(name: str, output: str, folder: Path) -> Metric:
    """The metric behind `module:name`; importing it runs the engineer's own code.

    Args:
        name: a function, or a class whose objects have `add` and `score`.
        output: public output it judges.
        folder: of the recipe, searched for the module before everything else.

    Raises:
        BadRecipe: there is no such thing.
    """
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, str(folder.resolve()))
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        because = f"{type(error).__name__}: {shown(str(error), 200)}"
        raise BadRecipe(f"use metric {shown(name)}", because, f"put {module_name}.py beside the recipe") from error
    finally:
        sys.path.remove(str(folder.resolve()))
    if inspect.isclass(found):
        return OwnClass(name, output, _calling(found, name))
    if not callable(found):
        raise BadRecipe(f"use metric {shown(name)}", "it is neither a function nor a class", "name one")
    return OwnFunction(name, output, found)


def _number(call: Callable[[], Any], name: str) -> float:
    value = _calling(call, name)
    if not isinstance(value, Real) or not math.isfinite(value):
        raise BadRecipe(f"use metric {shown(name)}", f"it returned {shown(str(value))}", "return a finite number")
    return float(value)


def _calling(call: Callable[[], Any], name: str) -> Any:
    try:
        return call()
    except Exception as error:
        because = f"it raised {type(error).__name__}: {shown(str(error), 200)}"
        raise BadRecipe(f"use metric {shown(name)}", because, "correct it") from error
