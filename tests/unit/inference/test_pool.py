"""Engine objects that callers borrow: never more than there may be, and none is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_runtime.inference.requests.pool import Pool


def test_no_two_callers_have_the_same_object_and_no_more_are_made_than_there_may_be() -> None:
    made: list[object] = []
    lent: set[int] = set()
    clashes: list[int] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    pool = Pool(make, 3, make())

    def borrow(_: int) -> None:
        for _ in range(200):
            with pool.borrowed() as one:
                if id(one) in lent:
                    clashes.append(id(one))
                lent.add(id(one))
                lent.discard(id(one))

    with ThreadPoolExecutor(8) as crew:
        list(crew.map(borrow, range(8)))

    assert clashes == []
    assert 1 <= len(made) <= 3


def test_who_waits_gets_what_was_given_back_though_nobody_says_so() -> None:
    pool = Pool(object, 1, "only")
    with ThreadPoolExecutor(1) as crew, pool.borrowed() as one:
        waiting = crew.submit(lambda: pool.borrowed().__enter__())
        while not pool._changed._waiters:  # type: ignore[attr-defined]
            pass

        # As a Ctrl-C would leave it, between giving it back and saying so.
        pool._free.append(one)

        assert waiting.result(60) == "only"


def test_an_object_that_could_not_be_made_may_be_made_later() -> None:
    refusals = [MemoryError()]

    def make() -> str:
        if refusals:
            raise refusals.pop()
        return "second"

    pool = Pool(make, 2, "first")
    with pool.borrowed():
        with pytest.raises(MemoryError), pool.borrowed():
            pass
        with pool.borrowed() as other:
            assert other == "second"
