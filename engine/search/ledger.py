"""The ledger: which genome was claimed by which trial, and an Optuna study as the index of results.

The ``result.json`` of each trial is the truth. The database holds the claims (what is being
measured, exactly once) and an index for Optuna's tools, and can be rebuilt from the files. Trials
enter Optuna only when they are told, whole: a killed controller leaves none of them running.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from engine import results as files
from engine.errors import UsageError
from engine.results import Result
from engine.search import Proposal, lease
from engine.search.index import Index, digest

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

_Stamp = tuple[int, int, int]
"""A file's number, time of change in ns, and size: a file written anew differs in one of them."""


def results(folder: Path) -> list[Result]:
    """The results in ``<folder>/<trial>/result.json``, by trial; see :meth:`Results.read`."""
    return Results(folder).read()


@dataclass(frozen=True)
class Results:
    """A study's results as they stand in its folder; each file is parsed once while it stays as
    it is. Whoever asks again and again keeps one of these."""

    folder: Path
    _held: dict[str, tuple[_Stamp, Result]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def read(self) -> list[Result]:
        """The results in ``<folder>/<trial>/result.json``, by trial.

        Raises UsageError that names the file when one is damaged or belongs to another trial.
        """
        found: dict[str, tuple[_Stamp, Result]] = {}
        for name in os.listdir(self.folder) if self.folder.is_dir() else ():
            if not name.isdecimal():
                continue
            path = os.path.join(self.folder, name, "result.json")
            try:
                # Looked at before it is read: a file replaced meanwhile is read again next time.
                seen = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            stamp = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
            held = self._held.get(name)
            found[name] = held if held and held[0] == stamp else (stamp, _loaded(Path(path)))
        self._held.clear()
        self._held.update(found)
        return sorted((result for _, result in found.values()), key=lambda r: r.trial)


def _loaded(path: Path) -> Result:
    try:
        result = files.load(path)
    except (ValueError, AttributeError) as error:
        raise UsageError(_damaged_result(path, str(error))) from error
    if result.trial != int(path.parent.name):
        raise UsageError(_damaged_result(path, f"it says trial {result.trial}"))
    return result


def _damaged_result(path: Path, why: str) -> str:
    reason = " ".join(why.removeprefix(f"{path} is damaged: ").split())
    return (
        f"{path} is damaged ({reason}): restore it, or remove the folder {path.parent} "
        "and run the same command, which measures that trial again"
    )


@dataclass(frozen=True)
class Ledger:
    """An open study; made by :meth:`open`, and exclusively ours until :meth:`close`."""

    url: str
    study: str
    machine: str
    fingerprint: Mapping[str, Any]
    _engine: Engine
    _claims: Table
    _index: Index
    _lease: BinaryIO

    @classmethod
    def open(cls, url: str, study: str, fingerprint: Mapping[str, Any], machine: str) -> Ledger:
        """Create or reopen the study in the SQLite file of ``url`` (``sqlite:///PATH``).

        ``fingerprint`` is what makes results comparable (space, model, objective, baseline, goal),
        as JSON. ``machine`` is the machine's profile: a genome is claimed once per profile.
        Raises UsageError, and changes nothing, for a damaged file, a study with another
        fingerprint, and a study that a live controller holds.
        """
        path = _database(url)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held = lease.take(path, study)
        except OSError as error:
            raise UsageError(f"cannot write to {path.parent}: {error.strerror}") from error
        try:
            _refuse_damaged(path)
            plain = json.loads(json.dumps(fingerprint))
            engine, claims = _tables(url)
            index = Index.open(url, engine, study)
            ledger = cls(url, study, machine, plain, engine, claims, index, held)
            ledger._adopt()
        except BaseException:
            held.close()
            raise
        return ledger

    def close(self) -> None:
        """Give the lease back."""
        self._engine.dispose()
        self._index.close()
        self._lease.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def claim(self, trial: int, key: str, proposal: Proposal) -> bool:
        """Reserve a genome for a trial; False when it is claimed already on this machine profile.

        Raises ValueError when the trial's number is in use for another genome.
        """
        with self._engine.begin() as connection:
            return self._reserve(connection, trial, key, proposal)

    def told(self, result: Result) -> None:
        """Index a result and settle its claim; telling the same trial again changes nothing.

        The index keeps what was told first; :meth:`rebuild` brings it up to a changed file.
        """
        digests = self._index.digests
        with self._engine.begin() as connection:
            self._reserve(connection, result.trial, result.key, _proposal(result))
            if result.trial not in digests:
                self._index.add(connection, [result])
            self._settle(connection, {result.trial: True})
        digests.setdefault(result.trial, digest(result))

    def open_claims(self) -> list[tuple[int, Proposal]]:
        """Trials that were claimed and not told, with what they were to measure."""
        rows = self._rows(self._claims.c.told.is_(False))
        return [(row.trial, _claimed(row)) for row in rows]

    def taken(self) -> set[str]:
        """Keys of all claimed genomes."""
        return {row.key for row in self._rows()}

    def rebuild(self, source: Path | Results) -> None:
        """Make the index say what the trials' files say, all in one transaction.

        Missing results are told, claims whose file is gone are open again, and if a file has
        changed since it was told (an acceptance measurement) or is gone, Optuna's trials are
        written anew. ``source`` is the study's folder or the reader that the caller keeps.
        """
        found = (source if isinstance(source, Results) else Results(source)).read()
        files_say = {r.trial: digest(r) for r in found}
        digests = self._index.digests
        rewrite = any(files_say.get(trial) != held for trial, held in digests.items())
        rows = self._rows()
        with self._engine.begin() as connection:
            if rewrite:
                self._index.clear(connection)
            self._index.add(connection, (r for r in found if rewrite or r.trial not in digests))
            self._reserve_all(connection, found, {row.trial: row.key for row in rows})
            changed = {r.trial: not r.told for r in rows if r.told != (r.trial in files_say)}
            self._settle(connection, changed)
        digests.clear()
        digests.update(files_say)

    def _reserve(self, connection: Connection, trial: int, key: str, proposal: Proposal) -> bool:
        from sqlalchemy import select
        from sqlalchemy.dialects.sqlite import insert

        row = self._row(trial, key, proposal)
        done = connection.execute(insert(self._claims).values(row).on_conflict_do_nothing())
        if done.rowcount:
            return True
        held = select(self._claims.c.id).where(*self._ours, self._claims.c.key == key)
        if connection.execute(held).first() is None:
            raise ValueError(_claimed_otherwise(trial))
        return False

    def _reserve_all(
        self, connection: Connection, found: list[Result], held: Mapping[int, str]
    ) -> None:
        """Claims, settled, for the results that have none; ``held`` is trial to key."""
        from sqlalchemy import insert

        keys = set(held.values())
        rows = []
        for result in found:
            if result.key in keys:
                continue
            if result.trial in held:
                raise ValueError(_claimed_otherwise(result.trial))
            keys.add(result.key)
            rows.append(self._row(result.trial, result.key, _proposal(result)) | {"told": True})
        if rows:
            connection.execute(insert(self._claims), rows)

    def _row(self, trial: int, key: str, proposal: Proposal) -> dict[str, Any]:
        return {
            "study": self.study,
            "key": key,
            "machine": self.machine,
            "trial": trial,
            # A genome has no order; a row made from a file equals the one made from a proposal.
            "genome": json.dumps(proposal.genome, sort_keys=True),
            "origin": proposal.origin,
            "parents": json.dumps(proposal.parents),
            "told": False,
        }

    @property
    def _ours(self) -> tuple[Any, Any]:
        table = self._claims.c
        return (table.study == self.study, table.machine == self.machine)

    def _rows(self, *conditions: Any) -> list[Any]:
        from sqlalchemy import select

        query = select(self._claims).where(*self._ours, *conditions)
        with self._engine.connect() as connection:
            return list(connection.execute(query.order_by(self._claims.c.trial)))

    def _settle(self, connection: Connection, told: Mapping[int, bool]) -> None:
        from sqlalchemy import bindparam, update

        if told:
            its = self._claims.c.trial == bindparam("its")
            change = update(self._claims).where(*self._ours, its).values(told=bindparam("now"))
            connection.execute(change, [{"its": t, "now": now} for t, now in told.items()])

    def _adopt(self) -> None:
        """Put our fingerprint on a new study, or refuse another's."""
        study = self._index.study
        held = study.user_attrs.get("fingerprint")
        if held is None and not self._index.digests:
            # New, or its controller was killed between the two writes.
            study.set_user_attr("fingerprint", self.fingerprint)
        elif held != self.fingerprint:
            differing = "; ".join(_differences(held or {}, self.fingerprint)[:4])
            raise UsageError(
                f"study {self.study} was made with other settings ({differing}): "
                "use those, or give another name with study=NAME"
            )


def _proposal(result: Result) -> Proposal:
    return Proposal(result.genome, result.origin, result.parents)


def _claimed_otherwise(trial: int) -> str:
    return f"trial {trial} is claimed for another genome"


def _claimed(row: Any) -> Proposal:
    return Proposal(json.loads(row.genome), row.origin, tuple(json.loads(row.parents)))


def _differences(held: Any, ours: Any, at: str = "") -> list[str]:
    """Where two JSON values differ, in words."""
    if not isinstance(held, dict) or not isinstance(ours, dict):
        return [] if held == ours else [f"{at or 'settings'} was {_brief(held)}, is {_brief(ours)}"]
    found = []
    for name in sorted(set(held) | set(ours)):
        where = f"{at}.{name}" if at else name
        if name not in held:
            found.append(f"{where} is new")
        elif name not in ours:
            found.append(f"{where} is gone")
        else:
            found += _differences(held[name], ours[name], where)
    return found


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _database(url: str) -> Path:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    path = parsed.database if parsed and parsed.get_backend_name() == "sqlite" else None
    if not path or path == ":memory:":
        raise UsageError(f"ledger {url!r} is no file; allowed: sqlite:///PATH, on a local disk")
    return Path(path)


def _refuse_damaged(path: Path) -> None:
    """Check an existing file without writing to it. An empty file is what a controller leaves
    that was killed before its first write, so it is as good as none."""
    if not path.exists() or path.stat().st_size == 0:
        return
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)
        try:
            (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        answer = str(error)
    if answer != "ok":
        raise UsageError(
            f"{path} is damaged ({answer}): move it away and run the same command, which rebuilds "
            "it from the trials' result.json files"
        )


def _tables(url: str) -> tuple[Engine, Table]:
    import sqlalchemy as sql

    metadata = sql.MetaData()
    texts = ("study", "key", "machine", "genome", "origin", "parents")
    claims = sql.Table(
        "claims",
        metadata,
        sql.Column("id", sql.Integer, primary_key=True),
        *(sql.Column(name, sql.String, nullable=False) for name in texts),
        sql.Column("trial", sql.Integer, nullable=False),
        sql.Column("told", sql.Boolean, nullable=False),
        sql.UniqueConstraint("study", "key", "machine"),
        sql.UniqueConstraint("study", "trial", "machine"),
    )
    engine = sql.create_engine(url)
    metadata.create_all(engine)
    return engine, claims
