"""A status is one of six words, and can be looked up

Revision ID: f5d1964e7a38
Revises: e2b8307ac5d9
Create Date: 2025-01-20 20:48:09+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "f5d1964e7a38"
down_revision = "e2b8307ac5d9"
branch_labels = None
depends_on = None

WORDS = ("draft", "applied", "interview", "offer", "rejected", "withdrawn")
STATUS = sa.table("applications", sa.column("status"))


def upgrade() -> None:
    """Case and spaces are mended; a word that is none of the six becomes 'draft', where a person sees it."""
    op.execute(STATUS.update().values(status=sa.func.lower(sa.func.trim(STATUS.c.status))))
    op.execute(STATUS.update().where(STATUS.c.status.not_in(WORDS)).values(status="draft"))
    with op.batch_alter_table("applications") as table:
        table.create_check_constraint(op.f("ck_applications_status"), f"status IN {WORDS}")
        table.create_index("ix_applications_status_applied_on", ["status", "applied_on"])


def downgrade() -> None:
    with op.batch_alter_table("applications") as table:
        table.drop_index("ix_applications_status_applied_on")
        table.drop_constraint(op.f("ck_applications_status"), type_="check")
