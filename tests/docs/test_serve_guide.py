"""The guide to serving: its programs run against a server started as it says, its table of errors holds."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.bench.served import serving
from tests.fakes.pki import make_ca

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "serve-over-the-open-inference-protocol.md"
PAGE = GUIDE.read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_programs_for_other_machines_are_let_in_with_token_and_authority(
    reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ca = make_ca(reader)
    issued = ca.issue("localhost")
    (reader / "token").write_text("0123456789abcdef0123456789abcdef\n")
    options = ("--tls-cert", issued.cert_file, "--tls-key", issued.key_file, "--token-file", "token")
    names: dict[str, object] = {}

    with serving(reader / "digits-out" / "digits-1.0.0", reader / "models.sock", *map(str, options)) as addresses:
        for code in (code for code in PYTHON if "token" in code):
            http = code.replace("https://edge-1.local:8000", addresses.http)
            http = http.replace("ca.pem", str(ca.ca_file))
            exec(compile(http.replace("edge-1.local:8001", addresses.grpc), GUIDE.name, "exec"), names)

    assert capsys.readouterr().out.count('[{"index":3,"label":"3"') == 2


def test_a_binary_answer_is_split_and_another_coding_refused(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (code for code in PYTHON if "token" not in code)

    with serving(reader / "digits-out" / "digits-1.0.0", reader / "models.sock") as addresses:
        exec(compile(code.replace("http://127.0.0.1:8000", addresses.http), GUIDE.name, "exec"), {})
        strange = urllib.request.Request(
            f"{addresses.http}/v2/models/digits/infer", b"{}", {"Content-Encoding": "br"}, method="POST"
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(strange)
        with urllib.request.urlopen(f"{addresses.http}/metrics") as metrics:
            page = metrics.read().decode()

    assert capsys.readouterr().out.startswith("logits [[")
    assert f"| {refused.value.code} |" in PAGE
    assert "edge_runtime_calls_total" in page
