"""Reminders

Revision ID: c619f47d8e05
Revises: 8d24b6f09c13
Create Date: 2024-11-09 11:05:30+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "c619f47d8e05"
down_revision = "8d24b6f09c13"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reminders",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("application_id", sa.Integer(), nullable=False),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("what", sa.String(200), nullable=False),
        sa.Column("done", sa.Boolean(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reminders"),
        sa.ForeignKeyConstraint(
            ["application_id"], ["applications.id"], name="fk_reminders_application_id", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("reminders")
