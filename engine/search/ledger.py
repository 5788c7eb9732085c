"""The ledger: which genome was claimed by which trial, and an Optuna study as the index of results.

The ``result.json`` of each trial is the truth. The database holds the claims (what is being
measured, exactly once) and an index for Optuna's tools, and can be rebuilt from the files. Trials
enter Optuna only when they are told, whole: a killed controller leaves none of them running.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from engine import results as files
from engine.errors import UsageError
from engine.results import Result
from engine.search import Proposal
from engine.strategy import Gene, registry

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from sqlalchemy import Engine, Table

_LOCKED_BYTE = 1 << 20
"""Offset of the locked byte on Windows, where a locked byte cannot be read: beyond the holder's
process number, which a second controller wants to show."""


def results(folder: Path) -> list[Result]:
    """The results in ``<folder>/<trial>/result.json``, by trial.

    Raises UsageError that names the file when one is damaged or belongs to another trial.
    """
    found = []
    for path in folder.glob("*/result.json"):
        if not path.parent.name.isdigit():
            continue
        try:
            result = files.load(path)
        except (ValueError, AttributeError) as error:
            raise UsageError(_damaged_result(path, str(error))) from error
        if result.trial != int(path.parent.name):
            raise UsageError(_damaged_result(path, f"it says trial {result.trial}"))
        found.append(result)
    return sorted(found, key=lambda r: r.trial)


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
            lease = _take_lease(path, study)
        except OSError as error:
            raise UsageError(f"cannot write to {path.parent}: {error.strerror}") from error
        try:
            _refuse_damaged(path)
            plain = json.loads(json.dumps(fingerprint))
            ledger = cls(url, study, machine, plain, *_tables(url), lease)
            ledger._adopt()
        except BaseException:
            lease.close()
            raise
        return ledger

    def close(self) -> None:
        """Give the lease back."""
        self._engine.dispose()
        self._storage.engine.dispose()
        self._lease.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def claim(self, trial: int, key: str, proposal: Proposal) -> bool:
        """Reserve a genome for a trial; False when it is claimed already on this machine profile.

        Raises ValueError when the trial's number is in use for another genome.
        """
        from sqlalchemy import insert
        from sqlalchemy.exc import IntegrityError

        row = {
            "study": self.study,
            "key": key,
            "machine": self.machine,
            "trial": trial,
            "genome": json.dumps(proposal.genome),
            "origin": proposal.origin,
            "parents": json.dumps(proposal.parents),
            "told": False,
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(self._claims).values(row))
        except IntegrityError:
            if key in self.taken():
                return False
            raise ValueError(f"trial {trial} is claimed for another genome") from None
        return True

    def told(self, result: Result) -> None:
        """Index a result and settle its claim; telling the same trial again changes nothing.

        The index keeps what was told first; :meth:`rebuild` brings it up to a changed file.
        """
        proposal = Proposal(result.genome, result.origin, result.parents)
        self.claim(result.trial, result.key, proposal)
        if result.trial not in self._indexed():
            self._study().add_trial(_frozen(result))
        self._settle(result.trial, True)

    def open_claims(self) -> list[tuple[int, Proposal]]:
        """Trials that were claimed and not told, with what they were to measure."""
        return [(row.trial, _claimed(row)) for row in self._rows() if not row.told]

    def taken(self) -> set[str]:
        """Keys of all claimed genomes."""
        return {row.key for row in self._rows()}

    def rebuild(self, folder: Path) -> None:
        """Make the index say what the trials' files say.

        Missing results are told, claims whose file is gone are open again, and if a file has
        changed since it was told (an acceptance measurement) Optuna's study is written anew.
        """
        import optuna

        found = results(folder)
        indexed = self._indexed()
        if any(indexed.get(r.trial, _digest(r)) != _digest(r) for r in found):
            optuna.delete_study(study_name=self.study, storage=self._storage)
            self._study().set_user_attr("fingerprint", self.fingerprint)
        for result in found:
            self.told(result)
        present = {r.trial for r in found}
        for row in self._rows():
            if row.told and row.trial not in present:
                self._settle(row.trial, False)

    def _rows(self) -> list[Any]:
        from sqlalchemy import select

        table = self._claims.c
        query = select(self._claims).where(table.study == self.study, table.machine == self.machine)
        with self._engine.connect() as connection:
            return list(connection.execute(query.order_by(table.trial)))

    def _settle(self, trial: int, told: bool) -> None:
        from sqlalchemy import update

        table = self._claims.c
        ours = (table.study == self.study, table.machine == self.machine, table.trial == trial)
        with self._engine.begin() as connection:
            connection.execute(update(self._claims).where(*ours).values(told=told))

    def _indexed(self) -> dict[int, str]:
        """Trial to digest of what Optuna holds."""
        held = self._study().get_trials(deepcopy=False)
        return {t.user_attrs["trial"]: t.user_attrs["digest"] for t in held}

    @cached_property
    def _storage(self) -> optuna.storages.RDBStorage:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.storages.RDBStorage(self.url)

    def _study(self) -> optuna.Study:
        import optuna

        return optuna.create_study(
            study_name=self.study,
            storage=self._storage,
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )

    def _adopt(self) -> None:
        """Put our fingerprint on a new study, or refuse another's."""
        study = self._study()
        held = study.user_attrs.get("fingerprint")
        if held is None and not study.get_trials(deepcopy=False):
            # New, or its controller was killed between the two writes.
            study.set_user_attr("fingerprint", self.fingerprint)
        elif held != self.fingerprint:
            differing = "; ".join(_differences(held or {}, self.fingerprint)[:4])
            raise UsageError(
                f"study {self.study} was made with other settings ({differing}): "
                "use those, or give another name with study=NAME"
            )


def _claimed(row: Any) -> Proposal:
    return Proposal(json.loads(row.genome), row.origin, tuple(json.loads(row.parents)))


def _digest(result: Result) -> str:
    """What the index holds of a result, to notice that its file has changed."""
    return f"{result.rung} {result.speedup} {result.loss} {result.memory_gib} {result.stage}"


def _frozen(result: Result) -> optuna.trial.FrozenTrial:
    """The result as a finished trial. One without a measured loss has none to minimise, so it
    counts as failed in Optuna; its figures stand in the attributes."""
    from optuna.trial import TrialState, create_trial

    distributions: dict[str, BaseDistribution] = {}
    params: dict[str, Any] = {}
    for name, genes in result.genome.items():
        declared = registry()[name].genes if name in registry() else {}
        for gene, value in genes.items():
            if gene in declared:
                label = f"{name}.{gene}"
                params[label], distributions[label] = value, _distribution(declared[gene])
    values = [result.speedup, result.loss]
    complete = result.ok and all(v is not None and math.isfinite(v) for v in values)
    kept = "trial genome key origin parents rung speedup memory_gib stage reason"
    attributes = {name: getattr(result, name) for name in kept.split()}
    attributes["digest"] = _digest(result)
    return create_trial(
        state=TrialState.COMPLETE if complete else TrialState.FAIL,
        values=[float(v) for v in values if v is not None] if complete else None,
        params=params,
        distributions=distributions,
        user_attrs=attributes,
    )


def _distribution(gene: Gene) -> BaseDistribution:
    """Bounds without the grid's step: a value off the grid is legal."""
    from optuna.distributions import CategoricalDistribution as Choice
    from optuna.distributions import FloatDistribution, IntDistribution

    if gene.choices:
        return Choice(gene.choices)
    low, high = gene.low or 0.0, gene.high or 0.0
    if isinstance(gene.default, int):
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high)


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


def _take_lease(path: Path, study: str) -> BinaryIO:
    """Lock the study's lease file; the system releases it when this process ends, however it ends.

    Raises UsageError while another controller holds it.
    """
    file = path.with_name(f"{path.name}.{quote(study, safe='')}.lock")
    lease = open(file, "a+b")  # noqa: SIM115 (held open as long as the ledger)
    try:
        _lock(lease)
    except OSError:
        lease.seek(0)
        holder = lease.read(20).decode(errors="replace").strip() or "unknown"
        lease.close()
        raise UsageError(
            f"study {study} is being searched by process {holder}: wait until it ends, "
            "or give another name with study=NAME"
        ) from None
    lease.truncate(0)
    lease.write(f"{os.getpid()}\n".encode())
    lease.flush()
    if hasattr(os, "register_at_fork"):
        # The lock lives as long as any copy of the descriptor: a forked worker must not keep it.
        os.register_at_fork(after_in_child=partial(_close, weakref.ref(lease)))
    return lease


def _close(held: weakref.ref[BinaryIO]) -> None:
    if lease := held():
        lease.close()


def _lock(file: BinaryIO) -> None:
    """Take an exclusive lock or raise OSError at once."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
