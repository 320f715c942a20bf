"""Records to a Python function."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.pipelines.records import Record

Take = Callable[[Record], object]


class Callback:
    """Calls a function with each record; what it raises is counted, and the next record comes all the same.

    Every sink gets the same picture, so the function may only look at it: whoever draws draws into a copy.

    Args:
        name: of the sink.
        take: the function.
    """

    def __init__(self, name: str, take: Take) -> None:
        self._name = name
        self._take = take

    def deliver(self, record: Record) -> None:
        """Call it. Raises: InferenceError when it raises."""
        picture = record.frame.picture.view()
        picture.flags.writeable = False
        try:
            self._take(replace(record, frame=replace(record.frame, picture=picture)))
        except Exception as error:
            because = f"it raised {type(error).__name__}: {shown(str(error), 200)}"
            raise InferenceError(f"call sink {self._name}", because, "correct the function") from error

    def close(self) -> None:
        """Call its `close`, where it has one, so that it can finish. Raises: InferenceError when that raises."""
        close = getattr(self._take, "close", None)
        if callable(close):
            try:
                close()
            except Exception as error:
                because = f"it raised {type(error).__name__}: {shown(str(error), 200)}"
                raise InferenceError(f"close sink {self._name}", because, "correct the function") from error


def load_function(name: str, function: str, folder: Path) -> Take:
    """The function behind `module:function`.

    Args:
        name: of the sink.
        function: as the file says.
        folder: where the file lies; modules are looked for there as well.

    Raises:
        ContractError: there is none that can be called.
    """
    module_name, colon, attribute = function.partition(":")
    cannot = f"open sink {name}"
    if not (colon and module_name and attribute):
        raise ContractError(cannot, f"{shown(function)} is not module:function", "name it that way")
    # Last, so that no file beside a pipeline stands in for a module that is installed; and for good, because a function
    # may import its own neighbours when it is called.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        because = f"{function} cannot be loaded ({type(error).__name__}: {shown(str(error), 200)})"
        raise ContractError(cannot, because, f"put it into {folder}, or its folder into PYTHONPATH") from error
    if not callable(found):
        raise ContractError(cannot, f"{function} is a {type(found).__name__}", "name something that can be called")
    take: Take = found
    return take
