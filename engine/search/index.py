"""Told trials in Optuna's tables, for Optuna's tools: a copy of the results that can be dropped.

Optuna enters one trial at a time, each in a transaction with a query for every figure, which takes
minutes for ten thousand trials. So the rows are written here, in one transaction with the claims;
the tables are read from the file that Optuna made, and a test compares the rows with Optuna's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engine.results import Result
from engine.strategy import Gene, registry

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial
    from sqlalchemy import Connection, Engine

KEPT = (
    "trial", "genome", "key", "origin", "parents", "rung", "speedup", "memory_gib", "stage",
    "reason",
)  # fmt: skip
"""Fields of a result that are the trial's user attributes."""


@dataclass(frozen=True)
class Index:
    """The Optuna study of that name in the database; made by :meth:`open`."""

    engine: Engine
    study: optuna.Study
    _storage: optuna.storages.RDBStorage

    @classmethod
    def open(cls, url: str, engine: Engine, name: str) -> Index:
        """Create or load the study, and Optuna's tables where they are missing; ``engine`` is the
        caller's own on the same ``url``."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = optuna.storages.RDBStorage(url)
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
        return cls(engine, study, storage)

    def close(self) -> None:
        self._storage.engine.dispose()

    @cached_property
    def digests(self) -> dict[int, str]:
        """Trial to the digest of what is held of it; read once, then kept up by the owner of the
        transaction, since a transaction may fail."""
        from sqlalchemy import select

        trials, attributes = self._tables["trials"].c, self._tables["trial_user_attributes"].c
        query = (
            select(attributes.trial_id, attributes.key, attributes.value_json)
            .join_from(self._tables["trials"], self._tables["trial_user_attributes"])
            .where(trials.study_id == self._id, attributes.key.in_(("trial", "digest")))
        )
        found: dict[int, dict[str, Any]] = {}
        with self.engine.connect() as connection:
            for number, key, text in connection.execute(query):
                found.setdefault(number, {})[key] = json.loads(text)
        return {held["trial"]: held["digest"] for held in found.values()}

    def add(self, connection: Connection, results: Iterable[Result]) -> None:
        """Enter results as finished trials, numbered on from the last."""
        from sqlalchemy import func, insert, select

        trials = self._tables["trials"]
        ours = trials.c.study_id == self._id
        first = connection.execute(select(func.count()).where(ours)).scalar_one()
        entered = dict(enumerate(map(_frozen, results), first))
        if not entered:
            return
        heads = [self._head(trial) | {"number": number} for number, trial in entered.items()]
        connection.execute(insert(trials), heads)
        # The database gives the ids: other studies in the file may be growing at the same time.
        query = select(trials.c.number, trials.c.trial_id).where(ours, trials.c.number >= first)
        rows: dict[str, list[dict[str, Any]]] = {}
        for number, trial_id in connection.execute(query):
            for table, items in _parts(entered[number]).items():
                rows.setdefault(table, []).extend({"trial_id": trial_id} | item for item in items)
        for table, items in rows.items():
            if items:
                connection.execute(insert(self._tables[table]), items)

    def clear(self, connection: Connection) -> None:
        """Remove all trials of the study, with what other tools have attached to them."""
        from sqlalchemy import delete, select

        trials = self._tables["trials"]
        ours = select(trials.c.trial_id).where(trials.c.study_id == self._id)
        for table in self._tables.values():
            if any(key.references(trials) for key in table.foreign_keys):
                connection.execute(delete(table).where(table.c.trial_id.in_(ours)))
        connection.execute(delete(trials).where(trials.c.study_id == self._id))

    def _head(self, trial: FrozenTrial) -> dict[str, Any]:
        return {
            "study_id": self._id,
            "state": trial.state.name,
            "datetime_start": trial.datetime_start,
            "datetime_complete": trial.datetime_complete,
        }

    @cached_property
    def _id(self) -> int:
        from sqlalchemy import select

        studies = self._tables["studies"]
        query = select(studies.c.study_id).where(studies.c.study_name == self.study.study_name)
        with self.engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    @cached_property
    def _tables(self) -> Any:
        from sqlalchemy import MetaData

        metadata = MetaData()
        metadata.reflect(self.engine)
        return metadata.tables


def digest(result: Result) -> str:
    """What the index holds of a result, to notice that its file has changed."""
    return f"{result.rung} {result.speedup} {result.loss} {result.memory_gib} {result.stage}"


def _parts(trial: FrozenTrial) -> dict[str, list[dict[str, Any]]]:
    """A trial's rows in the tables beside ``trials``, without the trial's id."""
    from optuna.distributions import distribution_to_json

    return {
        "trial_values": [
            {"objective": place, "value": value, "value_type": "FINITE"}
            for place, value in enumerate(trial.values or ())
        ],
        "trial_params": [
            {
                "param_name": name,
                "param_value": trial.distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(trial.distributions[name]),
            }
            for name, value in trial.params.items()
        ],
        "trial_user_attributes": [
            {"key": key, "value_json": json.dumps(value)} for key, value in trial.user_attrs.items()
        ],
    }


def _frozen(result: Result) -> FrozenTrial:
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
    attributes = {name: getattr(result, name) for name in KEPT} | {"digest": digest(result)}
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
