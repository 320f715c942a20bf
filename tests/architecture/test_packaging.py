"""A device installs neither server nor converter, and `all` never lets two engines overwrite each other."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
NOT_ON_A_DEVICE = {
    *("alembic", "asyncpg", "fastapi", "flask", "nicegui", "psycopg", "pydantic-settings", "sqlalchemy", "sqlmodel"),
    *("starlette", "uvicorn", "aiohttp", "prometheus-client"),
    *("nncf", "onnx", "onnx2tf", "onnxslim", "scikit-learn", "skl2onnx", "tensorflow", "torch"),
}


def requirements_of(extras: set[str]) -> list[Requirement]:
    lines = [*PROJECT["project"]["dependencies"], *(line for extra in sorted(extras) for line in EXTRAS[extra])]
    return [Requirement(line) for line in lines]


def everything_pulled_by(extras: set[str]) -> set[str]:
    """Every distribution that these extras bring in here, read from the installed distributions' own metadata."""
    waiting = [(requirement, frozenset(requirement.extras)) for requirement in requirements_of(extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement, wanted = waiting.pop()
        key = (canonicalize_name(requirement.name), wanted)
        if key in seen or not _applies(requirement, frozenset()):
            continue
        seen.add(key)
        for line in _declared_by(requirement.name):
            needed = Requirement(line)
            if _applies(needed, wanted):
                needed.marker = None
                waiting.append((needed, frozenset(needed.extras)))
    return {name for name, _ in seen}


def _declared_by(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras))


def test_a_device_with_one_engine_pulls_no_web_framework_database_or_converter() -> None:
    pulled = everything_pulled_by({"device", "ort"})

    assert {"onnxruntime", "paho-mqtt", "tuf", "numpy"} <= pulled
    assert not pulled & NOT_ON_A_DEVICE


def test_the_search_for_pulled_distributions_would_find_a_server() -> None:
    assert {"fastapi", "starlette", "sqlalchemy"} <= everything_pulled_by({"server"}) & NOT_ON_A_DEVICE


def test_the_contract_alone_costs_msgspec() -> None:
    assert everything_pulled_by(set()) == {"msgspec"}


def test_all_holds_every_extra_but_the_second_onnxruntime_and_the_tools() -> None:
    (line,) = EXTRAS["all"]

    assert Requirement(line).extras == set(EXTRAS) - {"all", "dev", "loadgen", "ort-gpu"}


@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - {"all"}))
def test_an_extra_bounds_each_distribution_from_below(extra: str) -> None:
    unbounded = [line for line in EXTRAS[extra] if not re.search(r">=\d", line)]

    assert unbounded == []


@pytest.mark.parametrize("command", ["edge-convert", "edge-runtime", "edge-fleet", "edge-device"])
def test_each_command_belongs_to_a_listed_package(command: str) -> None:
    module = PROJECT["project"]["scripts"][command].partition(":")[0]

    assert module.partition(".")[0] in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
