"""Tables of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Raw SQL on purpose: nothing maps these tables to objects.
TELEMETRY = (
    """
    CREATE TABLE telemetry_stream (
        device TEXT NOT NULL, epoch TEXT NOT NULL, stream TEXT NOT NULL,
        next_seq INTEGER, gap_since DOUBLE PRECISION, missing INTEGER NOT NULL, updated_at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (device, epoch, stream)
    )
    """,
    """
    CREATE TABLE telemetry_batch (
        device TEXT NOT NULL, epoch TEXT NOT NULL, stream TEXT NOT NULL,
        first_seq INTEGER NOT NULL, count INTEGER NOT NULL, dropped INTEGER NOT NULL,
        received_at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (device, epoch, stream, first_seq)
    )
    """,
    """
    CREATE TABLE telemetry_sample (
        device TEXT NOT NULL, slot TEXT NOT NULL, release TEXT NOT NULL, variant TEXT NOT NULL,
        start_s DOUBLE PRECISION NOT NULL, end_s DOUBLE PRECISION NOT NULL,
        requests INTEGER NOT NULL, correct INTEGER, total INTEGER,
        errors TEXT NOT NULL, latency TEXT, confidence TEXT, gauges TEXT NOT NULL
    )
    """,
    "CREATE INDEX ix_telemetry_sample_release ON telemetry_sample (release, device)",
    "CREATE INDEX ix_telemetry_sample_end ON telemetry_sample (end_s)",
)


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("prefix"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_audit_action"), "audit", ["action"], unique=False)
    op.create_index(op.f("ix_audit_subject"), "audit", ["subject"], unique=False)
    op.create_table(
        "certificate",
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("key_sha256", sa.String(), nullable=False),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.Column("not_after", sa.Float(), nullable=False),
        sa.Column("first_used_at", sa.Float(), nullable=True),
        sa.Column("superseded_at", sa.Float(), nullable=True),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("serial"),
    )
    op.create_index(op.f("ix_certificate_device"), "certificate", ["device"], unique=False)
    op.create_table(
        "claim",
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=True),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("used_at", sa.Float(), nullable=True),
        sa.Column("used_by", sa.String(), nullable=True),
        sa.Column("used_key_sha256", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("secret_sha256"),
    )
    op.create_index(op.f("ix_claim_id"), "claim", ["id"], unique=True)
    op.create_table(
        "desired",
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("slot", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("release", sa.String(), nullable=True),
        sa.Column("rollout", sa.String(), nullable=True),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("device", "slot"),
    )
    op.create_index(op.f("ix_desired_release"), "desired", ["release"], unique=False)
    op.create_index(op.f("ix_desired_rollout"), "desired", ["rollout"], unique=False)
    op.create_table(
        "device",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("standing", sa.String(), nullable=False),
        sa.Column("connection", sa.String(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("enrolled_at", sa.Float(), nullable=False),
        sa.Column("last_seen_at", sa.Float(), nullable=True),
        sa.Column("session", sa.String(), nullable=True),
        sa.Column("agent", sa.String(), nullable=True),
        sa.Column("facts", sa.Text(), nullable=True),
        sa.Column("capabilities", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_device_standing"), "device", ["standing"], unique=False)
    op.create_table(
        "release",
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("pushed_at", sa.Float(), nullable=False),
        sa.Column("pushed_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_index(op.f("ix_release_digest"), "release", ["digest"], unique=False)
    op.create_table(
        "release_blob",
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("model", "digest"),
    )
    op.create_table(
        "reported",
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("slot", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("release", sa.String(), nullable=True),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("device", "slot"),
    )
    op.create_index(op.f("ix_reported_release"), "reported", ["release"], unique=False)
    op.create_index(op.f("ix_reported_state"), "reported", ["state"], unique=False)
    op.create_table(
        "timeline",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("slot", sa.String(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_timeline_device"), "timeline", ["device"], unique=False)
    for statement in TELEMETRY:
        op.execute(statement)
