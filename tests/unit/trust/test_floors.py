from tuf.api.metadata import Role

from edge_runtime.trust.floors import floor_of, raised


def test_a_floor_belongs_to_the_keys_that_signed() -> None:
    floors = raised({}, "timestamp", 9, ["a"])

    assert floor_of(floors, "timestamp", Role(["a"], 1)) == 9
    assert floor_of(floors, "timestamp", Role(["b"], 1)) == 0
    assert floor_of(floors, "snapshot", Role(["a"], 1)) == 0


def test_adding_a_key_undoes_no_floor() -> None:
    assert floor_of(raised({}, "timestamp", 9, ["a"]), "timestamp", Role(["a", "b"], 1)) == 9


def test_a_floor_counts_what_a_threshold_of_present_keys_signed() -> None:
    floors = raised(raised({}, "root", 9, ["a", "b"]), "root", 5, ["c"])

    assert floor_of(floors, "root", Role(["a", "b", "c"], 2)) == 9
    assert floor_of(floors, "root", Role(["a", "c", "d"], 2)) == 5
    assert floor_of(floors, "root", Role(["a", "d", "e"], 2)) == 0


def test_no_floor_ever_falls() -> None:
    assert raised({"timestamp@a": 9}, "timestamp", 3, ["a"]) == {"timestamp@a": 9}
