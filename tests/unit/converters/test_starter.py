import dataclasses
import tomllib

import pytest

from converters.errors import BadRecipe
from converters.importers.onnx import describe
from converters.planning.recipe import parse_recipe
from converters.starter.from_model import starter_text
from converters.starter.from_options import Options, parse_bounds, recipe_from_options, with_options
from converters.starter.metadata.facts import AnswerFacts, Facts
from tests.fakes.onnx_models import conv_classifier

MODEL = describe(conv_classifier())
GIVEN = Options(
    model="m.onnx", name="cats", version="1", targets=("cpu",), calibration="c", evaluation="e", labels="l.txt",
    color="rgb", resize="stretch", filter="bilinear", antialias=True, scale=1.0, mean=(0.0,), std=(255.0,),
    activation="softmax", max_drop=("0.01",),
)  # fmt: skip


def test_the_starter_recipe_reads_as_a_recipe() -> None:
    recipe = parse_recipe(starter_text("m.onnx", MODEL).encode(), ".toml")

    assert recipe.inputs["image"].tensor == "input"
    assert recipe.inputs["image"].resize and recipe.inputs["image"].resize.size == (8, 8)  # noqa: PT018
    assert recipe.outputs["classes"].tensor == "logits"


def test_a_detector_without_annotations_is_judged_by_agreement() -> None:
    steps = ({"op": "detect", "family": "raw"}, {"op": "nms", "iou": 0.5})
    told = Facts("its metadata", answer=AnswerFacts("detections", steps=steps))

    recipe = tomllib.loads(starter_text("m.onnx", MODEL, (told,)))

    assert recipe["limits"] == {"min_agreement": {"*": 0.9}}


def test_options_make_the_same_recipe() -> None:
    recipe = recipe_from_options(GIVEN, MODEL)

    assert recipe.inputs["image"].layout == "NCHW"
    assert recipe.limits.max_drop == {"*": 0.01}
    assert recipe.calibration and recipe.calibration.folder == "c"  # noqa: PT018


def test_all_missing_options_are_listed_at_once() -> None:
    nothing = Options(model="m.onnx", name=None, version=None, targets=(), calibration=None, evaluation=None)

    with pytest.raises(BadRecipe) as refused:
        recipe_from_options(nothing, MODEL)

    for option in ("--name", "--version", "--target", "--evaluate", "--calibration", "--color", "--resize", "--filter",
                   "--antialias", "--scale", "--mean", "--std", "--activation"):  # fmt: skip
        assert option in str(refused.value)


def test_what_resizes_nothing_needs_no_filter() -> None:
    given = dataclasses.replace(GIVEN, resize="none", filter=None, antialias=None)

    resize = recipe_from_options(given, MODEL).inputs["image"].resize

    assert resize
    assert (resize.mode, resize.filter, resize.antialias) == ("none", None, None)


def test_a_float_build_needs_no_calibration() -> None:
    given = dataclasses.replace(GIVEN, calibration=None, precisions=("float32",))

    assert recipe_from_options(given, MODEL).calibration is None


def test_bounds_are_read_for_all_or_for_one_target() -> None:
    assert parse_bounds(("0.01", "coral=0.03")) == {"*": 0.01, "coral": 0.03}
    with pytest.raises(BadRecipe, match="not a number"):
        parse_bounds(("much",))


NOTHING = Options(model="", name=None, version=None, targets=(), calibration=None, evaluation=None)


def test_options_that_say_nothing_leave_a_recipe_as_it_is() -> None:
    recipe = recipe_from_options(GIVEN, MODEL)

    assert with_options(recipe, NOTHING) == recipe


def test_options_beside_a_recipe_take_the_place_of_what_it_says() -> None:
    recipe = recipe_from_options(GIVEN, MODEL)
    given = dataclasses.replace(
        NOTHING, max_drop=("coral=0.03",), min_snr_db=("12",), evaluation="all.npz", evaluation_range="200:",
        calibration_range=":50", targets=("coral",), golden_count=4, licence="MIT",
    )  # fmt: skip

    changed = with_options(recipe, given)

    assert changed.limits.max_drop == {"coral": 0.03}
    assert changed.limits.min_snr_db == {"*": 12.0}
    assert (changed.evaluation.name, changed.evaluation.folder, changed.evaluation.range) == ("all.npz", None, "200:")
    assert changed.calibration
    assert (changed.calibration.folder, changed.calibration.range) == ("c", ":50")
    assert (changed.targets, changed.golden.count, changed.licence.spdx) == (["coral"], 4, "MIT")


def test_a_file_of_samples_is_told_from_a_folder_and_its_labels_are_named() -> None:
    given = dataclasses.replace(
        GIVEN, calibration="t.csv", calibration_range="::5", evaluation="t.csv", evaluation_range="not ::5",
        truth="kind",
    )  # fmt: skip

    recipe = recipe_from_options(given, MODEL)

    assert recipe.calibration
    assert (recipe.calibration.file, recipe.calibration.range, recipe.calibration.truth) == ("t.csv", "::5", "kind")
    assert (recipe.evaluation.file, recipe.evaluation.folder, recipe.evaluation.truth) == ("t.csv", None, "kind")


def test_a_recipe_without_calibration_gets_none_from_the_name_of_a_column() -> None:
    recipe = recipe_from_options(dataclasses.replace(GIVEN, calibration=None, precisions=("float32",)), MODEL)

    changed = with_options(recipe, dataclasses.replace(NOTHING, truth="kind"))

    assert (changed.calibration, changed.evaluation.truth) == (None, "kind")


def test_what_belongs_to_inputs_and_outputs_is_refused_beside_a_recipe_rather_than_ignored() -> None:
    given = dataclasses.replace(NOTHING, color="bgr", activation="none")

    with pytest.raises(BadRecipe, match="use --color, --activation with --recipe: a recipe says that itself"):
        with_options(recipe_from_options(GIVEN, MODEL), given)
