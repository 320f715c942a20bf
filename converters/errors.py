"""Errors of the converter: each says what could not be done, why, and what the engineer can do about it."""

from __future__ import annotations

from edge_runtime.contract.errors import EdgeError


class ConvertError(EdgeError):
    """A release cannot be built as asked."""

    default_code = "convert"


class BadRecipe(ConvertError):
    """The recipe, or the options that stand for one, is incomplete or contradicts itself."""

    default_code = "bad_recipe"


class BadModel(ConvertError):
    """The model file cannot be used."""

    default_code = "bad_model"


class BadDataset(ConvertError):
    """The calibration or evaluation folder cannot be used."""

    default_code = "bad_dataset"


class CompileFailed(ConvertError):
    """A compiler refused the model, crashed, or ran into its time or memory limit."""

    default_code = "compile_failed"


class BadToolchain(ConvertError):
    """An isolated toolchain is missing or cannot be installed."""

    default_code = "bad_toolchain"


class CompilerRefused(CompileFailed):
    """A compiler looked at the model and refused it; it will refuse it again."""


class GoldenRefused(ConvertError):
    """The source model contradicts the golden set it would be shipped with."""

    default_code = "truth_failed"


class CannotWrite(ConvertError):
    """The release cannot be written where it was asked for."""

    default_code = "cannot_write"
