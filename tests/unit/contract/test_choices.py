from typing import Literal

import msgspec
import pytest

from edge_runtime.contract.choices import with_choices


class Inner(msgspec.Struct):
    unit: Literal["px", "grid"] = msgspec.field(name="box-unit")


class Outer(msgspec.Struct):
    kind: Literal["a", "b"] | None = None
    one: Inner | None = None
    many: dict[str, list[Inner]] = {}
    count: int = 0


def refusal(content: str) -> str:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.json.decode(content, type=Outer)
    return with_choices(str(refused.value), Outer)


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ('{"kind": "c"}', "a, b"),
        ('{"one": {"box-unit": "m"}}', "px, grid"),
        ('{"many": {"x": [{"box-unit": "px"}, {"box-unit": "m"}]}}', "px, grid"),
    ],
)
def test_a_refused_value_is_told_which_ones_there_are(content: str, values: str) -> None:
    assert refusal(content).endswith(f"; write one of {values}")


def test_other_refusals_stay_as_they_are() -> None:
    assert "write one of" not in refusal('{"count": "x"}')
