"""PATS, a personal application tracker: companies, applications, the people and interviews around them, and documents.

A document's bytes lie under the uploads folder, its row here: `Document.path` is relative to that folder.
"""

from __future__ import annotations

import os
from datetime import date, datetime
from pathlib import Path

from sqlalchemy import CheckConstraint, ForeignKey, Index, MetaData, String, Text, UniqueConstraint, make_url, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

FOLDER = Path(__file__).resolve().parent

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


def database_path(folder: Path = FOLDER) -> Path:
    """The database file in force: BACKUP_DATABASE, else DATABASE_URL, else `data/pats.db`; relative to `folder`."""
    value = os.environ.get("BACKUP_DATABASE") or os.environ.get("DATABASE_URL") or "data/pats.db"
    if "://" not in value:
        return folder / value
    url = make_url(value)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise ValueError(f"PATS keeps its data in an SQLite file, not in {url!r}.")
    return folder / url.database


def uploads_path(folder: Path = FOLDER) -> Path:
    """The folder the documents' files lie in: BACKUP_UPLOADS, else `uploads`; relative to `folder`."""
    return folder / (os.environ.get("BACKUP_UPLOADS") or "uploads")


class Base(DeclarativeBase):
    """Every constraint has a name, because SQLite can only alter a table by copying it, constraints by name."""

    metadata = MetaData(naming_convention=NAMES)


class Company(Base):
    __tablename__ = "companies"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    website: Mapped[str | None] = mapped_column(String(500))

    applications: Mapped[list[Application]] = relationship(back_populates="company")
    contacts: Mapped[list[Contact]] = relationship(back_populates="company")


class Contact(Base):
    __tablename__ = "contacts"
    __table_args__ = (UniqueConstraint("company_id", "email"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    company_id: Mapped[int] = mapped_column(ForeignKey("companies.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(200))
    email: Mapped[str | None] = mapped_column(String(320))

    company: Mapped[Company] = relationship(back_populates="contacts")


class Application(Base):
    __tablename__ = "applications"
    __table_args__ = (
        CheckConstraint("status IN ('draft', 'applied', 'interview', 'offer', 'rejected', 'withdrawn')", name="status"),
        CheckConstraint("salary_min <= salary_max", name="salary"),
        Index(None, "status", "applied_on"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    company_id: Mapped[int] = mapped_column(ForeignKey("companies.id", ondelete="RESTRICT"))
    position: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(20), server_default="draft")
    applied_on: Mapped[date | None]
    salary_min: Mapped[int | None]
    salary_max: Mapped[int | None]
    notes: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=text("CURRENT_TIMESTAMP"))

    company: Mapped[Company] = relationship(back_populates="applications")
    interviews: Mapped[list[Interview]] = relationship(back_populates="application", passive_deletes=True)
    documents: Mapped[list[Document]] = relationship(back_populates="application", passive_deletes=True)
    reminders: Mapped[list[Reminder]] = relationship(back_populates="application", passive_deletes=True)


class Interview(Base):
    __tablename__ = "interviews"
    __table_args__ = (UniqueConstraint("application_id", "starts_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    application_id: Mapped[int] = mapped_column(ForeignKey("applications.id", ondelete="CASCADE"))
    starts_at: Mapped[datetime]
    notes: Mapped[str | None] = mapped_column(Text)

    application: Mapped[Application] = relationship(back_populates="interviews")


class Document(Base):
    __tablename__ = "documents"
    __table_args__ = (CheckConstraint("size_bytes >= 0", name="size_bytes"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    application_id: Mapped[int] = mapped_column(ForeignKey("applications.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    path: Mapped[str] = mapped_column(String(500), unique=True)
    size_bytes: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=text("CURRENT_TIMESTAMP"))

    application: Mapped[Application] = relationship(back_populates="documents")


class Reminder(Base):
    __tablename__ = "reminders"

    id: Mapped[int] = mapped_column(primary_key=True)
    application_id: Mapped[int] = mapped_column(ForeignKey("applications.id", ondelete="CASCADE"))
    due_on: Mapped[date]
    what: Mapped[str] = mapped_column(String(200))
    done: Mapped[bool] = mapped_column(server_default=text("0"))

    application: Mapped[Application] = relationship(back_populates="reminders")
