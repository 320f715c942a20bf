"""Errors: what they say reaches terminals and logs, and names in it come from anywhere."""

import pickle

from edge_runtime.contract.errors import ContractError


def test_a_name_from_a_strangers_file_cannot_steer_a_terminal() -> None:
    error = ContractError("open \x1b]0;mine\x07", "tensor \u202egnp.x \x9b2J is missing", "write zähler")

    assert str(error) == (r"cannot open \x1b]0;mine\x07: tensor \u202egnp.x \x9b2J is missing; write zähler")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_error_of_several_lines_keeps_them() -> None:
    assert str(ContractError("open", "one\ntwo")) == "cannot open: one\ntwo"
