"""Documents, whose files lie under the uploads folder

Revision ID: 8d24b6f09c13
Revises: 3f1c8a5e2b70
Create Date: 2024-10-14 17:40:03+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "8d24b6f09c13"
down_revision = "3f1c8a5e2b70"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "documents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("application_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("path", sa.String(500), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), server_default=sa.text("CURRENT_TIMESTAMP"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_documents"),
        sa.ForeignKeyConstraint(
            ["application_id"], ["applications.id"], name="fk_documents_application_id", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("path", name="uq_documents_path"),
        sa.CheckConstraint("size_bytes >= 0", name=op.f("ck_documents_size_bytes")),
    )
    op.create_index("ix_documents_application_id", "documents", ["application_id"])


def downgrade() -> None:
    op.drop_index("ix_documents_application_id", "documents")
    op.drop_table("documents")
