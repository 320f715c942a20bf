"""The authority, the audit chain, and the database's own promises."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from sqlalchemy import create_engine, text
from sqlmodel import SQLModel

import fleet_server.inventory.store
import fleet_server.releases.store  # noqa: F401
from fleet_server.db import Database
from fleet_server.errors import StartError
from fleet_server.identity import audit
from fleet_server.identity.ca import CertificateAuthority
from tests.fakes.ports import free_port
from tests.fakes.server import LocalFleet

RAW_TABLES = {"telemetry_stream", "telemetry_batch", "telemetry_sample", "alembic_version"}


def test_device_certificates_are_for_clients_only(fleet: LocalFleet) -> None:
    certificate = x509.load_pem_x509_certificate(fleet.enrol("usage-1").encode())

    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not constraints.ca


def test_an_authority_that_was_cut_off_while_it_was_made_is_completed(tmp_path: Path) -> None:
    made = CertificateAuthority.open(tmp_path, time.time())
    made.certificate_path.unlink()

    again = CertificateAuthority.open(tmp_path, time.time())

    assert again.certificate.public_key() == made.certificate.public_key()


def test_server_certificates_are_kept_until_a_host_is_missing_or_time_is_short(tmp_path: Path) -> None:
    authority = CertificateAuthority.open(tmp_path, time.time())
    first = authority.server_pair("server", ["127.0.0.1"], time.time()).certificate.read_bytes()

    same = authority.server_pair("server", ["127.0.0.1"], time.time()).certificate.read_bytes()
    wider = authority.server_pair("server", ["127.0.0.1", "fleet.example"], time.time()).certificate.read_bytes()
    later = authority.server_pair("server", ["127.0.0.1"], time.time() + 390 * 86_400).certificate.read_bytes()

    assert same == first
    assert len({first, wider, later}) == 3


def test_a_changed_or_missing_audit_entry_is_found(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    database.upgrade()
    with database.session() as session:
        for subject in ("one", "two", "three"):
            audit.record(session, "test", "thing.done", subject, now=1.5, detail={"n": 1})
        assert audit.find_break(session) is None

    with database.session() as session:
        session.execute(text("UPDATE audit SET who = 'nobody' WHERE subject = 'two'"))
        broken = audit.find_break(session)
    database.close()

    assert broken is not None
    assert broken.subject == "two"


def test_the_migrations_make_exactly_the_tables_that_the_stores_use(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    database = Database(url)
    database.upgrade()
    database.close()

    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_object": lambda _o, name, kind, *_: kind != "table" or name not in RAW_TABLES}
        )
        differences = compare_metadata(context, SQLModel.metadata)
    engine.dispose()

    assert differences == []


def test_two_servers_cannot_use_one_data_folder(fleet: LocalFleet) -> None:
    with pytest.raises(StartError, match="another server uses it"):
        LocalFleet(fleet.context.settings.data_dir, mqtt_port=free_port())
