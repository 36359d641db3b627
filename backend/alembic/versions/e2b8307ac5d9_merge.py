"""Bring the salary range and the reminders together

Revision ID: e2b8307ac5d9
Revises: a7e05d3b1f42, c619f47d8e05
Create Date: 2024-11-12 09:31:17+00:00
"""

from __future__ import annotations

revision = "e2b8307ac5d9"
down_revision = ("a7e05d3b1f42", "c619f47d8e05")
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
