"""Files of a recipe that travel with the release and are named in its manifest: label lists and priors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from converters.errors import BadRecipe
from converters.planning.recipe import Recipe
from converters.planning.recipe_outputs import priors_layer
from converters.release.draft import label_layer
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import LayerName
from edge_runtime.inference.arrays import read_npy


def read_priors(recipe: Recipe, base: Path) -> dict[LayerName, bytes]:
    """The files of priors by their layer. Raises: BadRecipe: one cannot be read, or is no list of boxes."""
    found: dict[LayerName, bytes] = {}
    for path in (path for entry in recipe.outputs.values() for path in entry.priors()):
        try:
            content = (base / path).read_bytes()
            shape = read_npy(content, path).shape
        except OSError as error:
            raise BadRecipe(f"read priors {path}", error.strerror or str(error), "check the path") from error
        except ContractError as error:
            raise BadRecipe(error.cannot, error.because, "save them with numpy.save") from error
        if len(shape) != 2 or shape[1] != 4:
            because = f"its shape is {list(shape)}, not [boxes, 4]"
            raise BadRecipe(f"use priors {path}", because, "one row per box: centre x, centre y, width, height")
        title = priors_layer(path)
        if found.setdefault(title, content) != content:
            raise BadRecipe(f"use priors {path}", "another file of that name has other contents", "rename one")
    return found


def layers_of(
    recipe: Recipe, labels: Mapping[str, tuple[str, ...]], priors: Mapping[LayerName, bytes]
) -> dict[LayerName, bytes]:
    """Contents by layer.

    Args:
        recipe: for the names.
        labels: label texts by public output.
        priors: what `read_priors` found.
    """
    lists: dict[LayerName, bytes] = {}
    for name, texts in labels.items():
        title = label_layer(recipe.outputs, name)
        assert title is not None  # it was read, so it was named
        lists[title] = ("\n".join(texts) + "\n").encode()
    return {**lists, **priors}
