"""Companies, contacts, applications and interviews

Revision ID: 3f1c8a5e2b70
Revises:
Create Date: 2024-09-02 08:12:44+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "3f1c8a5e2b70"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "companies",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("website", sa.String(500)),
        sa.PrimaryKeyConstraint("id", name="pk_companies"),
        sa.UniqueConstraint("name", name="uq_companies_name"),
    )
    op.create_table(
        "contacts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("company_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("email", sa.String(320)),
        sa.PrimaryKeyConstraint("id", name="pk_contacts"),
        sa.ForeignKeyConstraint(["company_id"], ["companies.id"], name="fk_contacts_company_id", ondelete="CASCADE"),
        sa.UniqueConstraint("company_id", "email", name="uq_contacts_company_id_email"),
    )
    op.create_table(
        "applications",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("company_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.String(200), nullable=False),
        sa.Column("status", sa.String(20), server_default="draft", nullable=False),
        sa.Column("applied_on", sa.Date()),
        sa.Column("salary", sa.String(50)),
        sa.Column("notes", sa.Text()),
        sa.Column("created_at", sa.DateTime(), server_default=sa.text("CURRENT_TIMESTAMP"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_applications"),
        sa.ForeignKeyConstraint(
            ["company_id"], ["companies.id"], name="fk_applications_company_id", ondelete="RESTRICT"
        ),
    )
    op.create_table(
        "interviews",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("application_id", sa.Integer(), nullable=False),
        sa.Column("starts_at", sa.DateTime(), nullable=False),
        sa.Column("notes", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_interviews"),
        sa.ForeignKeyConstraint(
            ["application_id"], ["applications.id"], name="fk_interviews_application_id", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("application_id", "starts_at", name="uq_interviews_application_id_starts_at"),
    )


def downgrade() -> None:
    for table in ("interviews", "applications", "contacts", "companies"):
        op.drop_table(table)
