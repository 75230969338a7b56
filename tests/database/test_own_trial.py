"""The trial under a fence, which is kept in memory: what the database is told of it."""

from __future__ import annotations

import time
import uuid
from typing import Any

import optuna
import pytest

from hpo.database.connection import connect
from hpo.database.storage import TrialStorage, open_storage
from hpo.errors import TrialGone
from hpo.tickets.budget import Tickets
from hpo.tickets.ticket import Ticket


class Owner:
    """A worker's side of a study of one ticket."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.storage: TrialStorage = open_storage(connect(url))
        self.study = optuna.create_study(study_name="s", storage=self.storage)
        self.tickets = Tickets(connect(url), str(uuid.uuid4()))
        self.tickets.grow(1)
        self.ticket = self.take()

    def take(self) -> Ticket:
        """Take the ticket, and hold it."""
        ticket = self.tickets.take(worker="w", slot="cpu:0")
        assert ticket is not None
        self.storage.hold(ticket)
        return ticket

    def begin(self) -> optuna.Trial:
        trial_id = self.storage.create_trial(self.study._study_id, user_attrs={}, system_attrs={})
        return optuna.Trial(self.study, trial_id)

    def stored(self) -> list[optuna.trial.FrozenTrial]:
        """The trials as any Optuna program sees them."""
        return optuna.load_study(study_name="s", storage=self.url).get_trials()


@pytest.fixture
def owner(url: str) -> Owner:
    return Owner(url)


def test_an_attribute_that_is_changed_and_set_again_is_stored_again(owner):
    trial = owner.begin()
    losses: list[float] = [1.0]

    trial.set_user_attr("losses", losses)
    owner.storage.flush(trial._trial_id)
    losses.append(0.5)
    trial.set_user_attr("losses", losses)
    owner.storage.flush(trial._trial_id)

    assert owner.stored()[0].user_attrs["losses"] == [1.0, 0.5]


@pytest.mark.parametrize("kind", ["user", "system"])
def test_an_attribute_is_stored_as_it_was_when_it_was_set(owner, kind):
    trial = owner.begin()
    given: dict[Any, Any] = {1: (2, 3)}
    write = getattr(owner.storage, f"set_trial_{kind}_attr")

    write(trial._trial_id, "given", given)
    given[1] = "later"
    owner.storage.flush(trial._trial_id)

    kept = getattr(owner.storage.get_trial(trial._trial_id), f"{kind}_attrs")["given"]
    assert getattr(owner.stored()[0], f"{kind}_attrs")["given"] == kept == {"1": [2, 3]}


@pytest.mark.parametrize(
    ("key", "value"),
    [("given", object()), ("nul\0", 1), ("\ud800", 1), ("k" * 513, 1), ("given", {(1, 2): 3})],
)
def test_an_attribute_that_cannot_be_stored_raises_where_it_is_set_and_stops_no_trial(
    owner, key, value
):
    trial = owner.begin()

    with pytest.raises((TypeError, ValueError)):
        trial.set_user_attr(key, value)
    owner.study.tell(trial, 1.0)

    assert owner.stored()[0].value == 1.0


@pytest.mark.parametrize(
    "value",
    ["nul\0", "\ud800", "é€", float("inf"), 'quote "', "back\\slash", [None], "x" * 100_000],
)
def test_any_json_value_is_stored(owner, value):
    trial = owner.begin()

    trial.set_user_attr("given", value)
    trial.set_user_attr("clé %s", 1)
    owner.study.tell(trial, 1.0)

    assert owner.stored()[0].user_attrs == {"given": value, "clé %s": 1}


def test_a_new_trial_has_the_time_that_optuna_gives_it(owner, monkeypatch):
    monkeypatch.setenv("TZ", "UTC-5:30")
    time.tzset()
    try:
        trial = owner.begin()

        assert trial.datetime_start == owner.stored()[0].datetime_start
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_trial_that_its_ticket_no_longer_names_is_not_resumed_as_another(owner):
    owner.begin()
    owner.tickets.release(owner.ticket.run_uid)
    again = owner.take()
    assert again.trial_number == 0
    with connect(owner.url).begin() as connection:
        connection.exec_driver_sql("UPDATE hpo.tickets SET trial_number = NULL")

    with pytest.raises(TrialGone):
        owner.storage.resume_trial(owner.study._study_id)

    assert len(owner.stored()) == 1
