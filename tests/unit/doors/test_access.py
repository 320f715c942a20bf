"""Nothing listens beyond this machine without TLS and a token."""

from pathlib import Path

import pytest

from edge_runtime.contract.errors import ContractError
from edge_runtime.doors.access import Access, TlsFiles, check_exposure, read_token
from edge_runtime.doors.door import Listen, parse_listen

TOKEN = b"0123456789abcdef"
TLS = TlsFiles(Path("c.pem"), Path("k.pem"))


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("8000", Listen("127.0.0.1", 8000)),
        (":0", Listen("127.0.0.1", 0)),
        ("0.0.0.0:80", Listen("0.0.0.0", 80)),
        ("[::1]:9", Listen("::1", 9)),
        ("edge-1.local:8000", Listen("edge-1.local", 8000)),
    ],
)
def test_an_address_is_host_and_port(text: str, listen: Listen) -> None:
    assert parse_listen(text) == listen


@pytest.mark.parametrize("text", ["", ":", "host", "host:", "host:-1", "::1:80", "a b:80", "h:8 0"])
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(ContractError, match="write HOST:PORT"):
        parse_listen(text)


@pytest.mark.parametrize("port", ["99999", "65536", "9" * 5000], ids=["five", "next", "endless"])
def test_a_port_that_there_is_not_is_named(port: str) -> None:
    with pytest.raises(ContractError, match=r"there is no port '[69].*take one up to 65535"):
        parse_listen(f"localhost:{port}")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_neither_tls_nor_token(host: str) -> None:
    check_exposure("--http", Listen(host, 1), Access())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "localhost.example"])
@pytest.mark.parametrize(
    ("access", "missing"),
    [(Access(), "TLS and a token"), (Access(tls=TLS), "a token"), (Access(token=TOKEN), "TLS")],
)
def test_the_network_is_refused_with_what_is_missing(host: str, access: Access, missing: str) -> None:
    with pytest.raises(ContractError, match=rf"without {missing}; give --tls-cert"):
        check_exposure("--http", Listen(host, 1), access)


def test_with_both_the_network_is_let_in() -> None:
    check_exposure("--http", Listen("0.0.0.0", 1), Access(TLS, TOKEN))


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Basic " + TOKEN.decode(), "Bearer wrong", "Bearer ü"]
)
def test_a_wrong_token_opens_nothing(given: str | None) -> None:
    assert not Access(token=TOKEN).admits(given)


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_the_right_token_opens(scheme: str) -> None:
    assert Access(token=TOKEN).admits(scheme + TOKEN.decode())


def test_a_token_file_may_end_its_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(TOKEN + b"\n")

    assert read_token(tmp_path / "token") == TOKEN


@pytest.mark.parametrize("content", [b"", b"short", b"with a space in it, though long", b"\xff" * 20, b"x" * 600])
def test_a_token_that_can_be_guessed_or_sent_by_no_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)

    with pytest.raises(ContractError, match="openssl rand"):
        read_token(tmp_path / "token")


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="No such file or directory; name a file that may be read"):
        read_token(tmp_path / "none")


def test_tls_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"c\.pem.*cannot be loaded"):
        TLS.context()
