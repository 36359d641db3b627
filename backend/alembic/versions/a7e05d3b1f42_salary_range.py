"""A salary is two numbers instead of a text

Revision ID: a7e05d3b1f42
Revises: 8d24b6f09c13
Create Date: 2024-11-05 19:22:51+00:00
"""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op

revision = "a7e05d3b1f42"
down_revision = "8d24b6f09c13"
branch_labels = None
depends_on = None

SALARY = sa.table("applications", *(sa.column(name) for name in ("id", "salary", "salary_min", "salary_max", "notes")))


def upgrade() -> None:
    with op.batch_alter_table("applications") as table:
        table.add_column(sa.Column("salary_min", sa.Integer()))
        table.add_column(sa.Column("salary_max", sa.Integer()))
    numbers_from_texts()
    with op.batch_alter_table("applications") as table:
        table.create_check_constraint(op.f("ck_applications_salary"), "salary_min <= salary_max")
        table.drop_column("salary")


def downgrade() -> None:
    with op.batch_alter_table("applications") as table:
        table.add_column(sa.Column("salary", sa.String(50)))
    texts_from_numbers()
    with op.batch_alter_table("applications") as table:
        table.drop_constraint(op.f("ck_applications_salary"), type_="check")
        table.drop_column("salary_min")
        table.drop_column("salary_max")


def numbers_from_texts() -> None:
    """'50000-62000' and '50000' become numbers; any other text moves to the notes, so that nothing is lost."""
    connection = op.get_bind()
    rows = connection.execute(sa.select(SALARY).where(SALARY.c.salary.is_not(None))).all()
    for row in rows:
        found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", row.salary)
        if found:
            ends = sorted(int(end) for end in found.groups(default=found[1]))
            values = {"salary_min": ends[0], "salary_max": ends[1]}
        else:
            values = {"notes": "\n".join(filter(None, (row.notes, f"Salary: {row.salary}")))}
        connection.execute(SALARY.update().where(SALARY.c.id == row.id).values(values))


def texts_from_numbers() -> None:
    both = sa.func.printf("%d-%d", SALARY.c.salary_min, SALARY.c.salary_max)
    op.execute(SALARY.update().where(SALARY.c.salary_min.is_not(None)).values(salary=both))
