"""PATS over HTTP: a small web app with a database and an uploads folder, made to be backed up while it runs.

    GET  /health                              200 when the database answers, else 503
    GET  /applications                        every application, as JSON
    POST /applications                        {"company": …, "position": …}; its answer holds the new id
    POST /documents?application=ID&name=NAME  the body is the document

A document is on disk, whole, before its row is committed: no moment of the database refers to a file that is not there.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

from sqlalchemy import Engine, create_engine, event, func, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from models import Application, Company, Document, database_path, uploads_path


def open_database(path: Path) -> Engine:
    """The database in WAL mode with foreign keys enforced. A missing file is an error, never created empty."""
    engine = create_engine(f"sqlite:///file:{quote(str(path))}?mode=rw&uri=true", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


def applications(session: Session) -> list[dict[str, object]]:
    """Every application, oldest first, with the names of its documents."""
    found = session.scalars(select(Application).order_by(Application.id))
    return [
        {
            "id": one.id,
            "company": one.company.name,
            "position": one.position,
            "status": one.status,
            "documents": [document.name for document in one.documents],
        }
        for one in found
    ]


def add_application(session: Session, body: bytes) -> dict[str, object]:
    """A new application; its company is made on first mention. Raises ValueError, KeyError for a body that is none."""
    wanted = json.loads(body)
    company = session.scalar(select(Company).where(Company.name == wanted["company"]))
    company = company or Company(name=wanted["company"])
    application = Application(company=company, position=wanted["position"], status=wanted.get("status", "draft"))
    session.add(application)
    session.commit()
    return {"id": application.id}


def add_document(session: Session, uploads: Path, query: dict[str, list[str]], body: bytes) -> dict[str, object]:
    """A new document. Raises ValueError, KeyError for an unknown application or a name that is not a file's name."""
    application, name = session.get(Application, int(query["application"][0])), query["name"][0]
    if application is None or name in (".", "..") or {"/", "\0"} & set(name):
        raise ValueError("no such application, or not a file's name")
    path = PurePosixPath(str(application.id), f"{uuid4().hex[:12]}-{name}")
    store(uploads / path, body)
    document = Document(application=application, name=name, path=str(path), size_bytes=len(body))
    session.add(document)
    session.commit()
    return {"id": document.id, "path": document.path}


def store(path: Path, body: bytes) -> None:
    """Write a file that appears under its name complete, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{uuid4().hex}")
    try:
        draft.write_bytes(body)
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)


class Handler(BaseHTTPRequestHandler):
    """One request: find what it asks for, answer in JSON."""

    timeout = 5  # a silent client must not hold up the end of the server

    def __init__(self, engine: Engine, uploads: Path, *rest: Any) -> None:
        self.engine, self.uploads = engine, uploads
        super().__init__(*rest)

    def do_GET(self) -> None:
        self.respond({"/health": self.health, "/applications": applications})

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.respond(
            {
                "/applications": partial(add_application, body=body),
                "/documents": partial(add_document, uploads=self.uploads, query=parse_qs(url.query), body=body),
            }
        )

    def respond(self, routes: dict[str, Callable[[Session], object]]) -> None:
        route = routes.get(urlsplit(self.path).path)
        self.answer(*(self.outcome(route) if route else (404, {"error": "no such address"})))

    def outcome(self, route: Callable[[Session], object]) -> tuple[int, object]:
        """200 and what the route returns; 400 for a bad request, 503 where the database or the disk fails."""
        try:
            with Session(self.engine) as session:
                return 200, route(session)
        except (ValueError, KeyError, TypeError, IntegrityError) as error:
            return 400, {"error": str(error)}
        except (SQLAlchemyError, OSError) as error:
            return 503, {"error": str(error)}

    @staticmethod
    def health(session: Session) -> dict[str, object]:
        return {"applications": session.scalar(select(func.count(Application.id)))}

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for the requests under way


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    handler = partial(Handler, open_database(database_path()), uploads_path())
    with Server(("", int(os.environ.get("PORT", "8000"))), handler) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
        print(f"PATS listens on port {server.server_port}", flush=True)
        server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
