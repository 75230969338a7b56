"""Cost of waiting for tickets: idle workers, a ticket that is given back, trials of 5 s.

    python benchmarks/waiting.py                 # all rows: 4 min
    python benchmarks/waiting.py --rows idle     # 500 idle workers alone

Each worker is a process that was forked after the imports. It goes through the waiting of a real
one (`hpo.worker.idle`, `hpo.tickets`, its heartbeat) and sleeps in place of a training. It leaves
out what a trial writes in between. The server is one of its own with room for 1,100 connections.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import random
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import sqlalchemy as sa
from own_server import Load, ask, own_server
from sqlalchemy import orm

from hpo.database.connection import connect
from hpo.database.migrations import create_tables
from hpo.embedded import server as postgres
from hpo.tickets.budget import BEAT_S, Tickets
from hpo.tickets.crew import Crew, Member
from hpo.tickets.leases import process_id
from hpo.tickets.ticket import Ticket
from hpo.worker.heartbeat import Beat
from hpo.worker.idle import Idle
from hpo.worker.pulse import Pulse

# A backend that becomes idle adds its transactions to the server's count within 10 s.
_FLUSHED_S = 15.0
_IDLE = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%is_silent%'"


def work(url: str, uid: str, trial_s: float, results: Connection, stop: Any) -> None:
    """Be a worker: take tickets, sleep under a heartbeat, end them; tell when each was taken."""
    random.seed()
    db = connect(url, application="simulated", connections=2, kept=2)
    tickets, ended = Tickets(db, uid), threading.Event()
    threading.Thread(target=obey, args=(stop, ended), daemon=True).start()
    member = Member(
        worker="w", host="h", slot="s", process=process_id(), launcher="none", version={}
    )
    Crew(db, uid).join(member, {}, is_mixed=False)
    free_at = time.monotonic()
    with Idle(tickets, ended, member.keys) as idle:
        while not ended.is_set():
            idle.sweep()
            ticket = tickets.take(worker="w", slot="s")
            if ticket is None:
                if idle.wait().is_spent:
                    break
                continue
            results.send((ticket.ticket, time.monotonic(), time.monotonic() - free_at))
            idle.end()
            train(tickets, db, ticket, trial_s * random.uniform(0.9, 1.1))
            free_at = time.monotonic()


def obey(stop: Any, ended: threading.Event) -> None:
    """Pass on what the parent asks for."""
    stop.wait()
    ended.set()


def train(tickets: Tickets, db: sa.Engine, ticket: Ticket, seconds: float) -> None:
    with Beat(tickets, ticket, Pulse()):
        time.sleep(seconds)
    with orm.Session(db) as session, session.begin():
        ticket.end(session, "complete")


@contextmanager
def fleet(server: postgres.Server, uid: str, workers: int, trial_s: float) -> Iterator[Connection]:
    """That many workers of a study, and the pipe in which they tell what they took."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    stop = context.Event()
    # A collection in a fork would copy every page of the parent's objects.
    gc.freeze()
    args = (server.url, uid, trial_s, sender, stop)
    processes = [context.Process(target=work, args=args) for _ in range(workers)]
    for number, process in enumerate(processes):
        process.start()
        if number % 25 == 24:
            time.sleep(0.5)
    try:
        yield receiver
    finally:
        stop.set()
        for process in processes:
            process.join(30)
            process.kill()


def held_study(url: str, total: int) -> tuple[Tickets, str, list[Ticket]]:
    """A study whose tickets are all held by this process."""
    uid = str(uuid.uuid4())
    tickets = Tickets(connect(url, connections=2, kept=2), uid)
    tickets.grow(total)
    held = [tickets.take(worker="parent", slot="s") for _ in range(total)]
    return tickets, uid, [ticket for ticket in held if ticket is not None]


@contextmanager
def beating(tickets: Tickets, held: Sequence[Ticket]) -> Iterator[None]:
    """Renew leases meanwhile."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(6 * BEAT_S):
            for ticket in held:
                tickets.beat(ticket.run_uid, {})

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def settle(server: postgres.Server, workers: int) -> None:
    """Wait until all workers have looked, and listen."""
    while ask(server.libpq_url, _IDLE) < workers:
        time.sleep(0.5)
    time.sleep(_FLUSHED_S)


def idle(server: postgres.Server, workers: int) -> dict[str, Any]:
    """Idle workers that nothing happens to."""
    tickets, uid, held = held_study(server.url, 1)
    with fleet(server, uid, workers, 1.0), beating(tickets, held):
        settle(server, workers)
        load = Load(server)
        time.sleep(45)
        return {"workers": workers, **load.since()}


def returned(server: postgres.Server, workers: int, rounds: int = 40) -> dict[str, Any]:
    """Tickets that are given back one by one, to workers that are all idle."""
    tickets, uid, held = held_study(server.url, rounds + 1)
    waits = []
    with fleet(server, uid, workers, 0.2) as results, beating(tickets, held[rounds:]):
        settle(server, workers)
        load = Load(server)
        for ticket in held[:rounds]:
            released_at = time.monotonic()
            tickets.release(ticket.run_uid)
            _, taken_at, _ = results.recv()
            waits.append(taken_at - released_at)
            time.sleep(1)
        return {"workers": workers, **quantiles(waits), **load.since()}


def busy(server: postgres.Server, workers: int, trial_s: float = 5.0) -> dict[str, Any]:
    """Workers with trials of some seconds, and more tickets than they take."""
    uid = str(uuid.uuid4())
    Tickets(connect(server.url), uid).grow(100 * workers)
    waits = []
    with fleet(server, uid, workers, trial_s) as results:
        for _ in range(workers):
            results.recv()
        load, until = Load(server), time.monotonic() + 40
        while time.monotonic() < until:
            if results.poll(0.5):
                waits.append(results.recv()[2])
        return {"workers": workers, "trial_s": trial_s, **quantiles(waits), **load.since()}


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = statistics.quantiles(seconds, n=20, method="inclusive")
    found = {"median": statistics.median(seconds), "p95": ordered[18], "max": max(seconds)}
    return {f"wait_ms_{name}": round(1000 * value, 1) for name, value in found.items()}


_ROWS: dict[str, Callable[[postgres.Server], dict[str, Any]]] = {
    "idle": lambda server: idle(server, 500),
    "returned-1": lambda server: returned(server, 1),
    "returned-64": lambda server: returned(server, 64),
    "returned-500": lambda server: returned(server, 500, 15),
    "busy": lambda server: busy(server, 64),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=_ROWS, default=list(_ROWS))
    chosen = parser.parse_args().rows
    with own_server() as server:
        engine = connect(server.url)
        create_tables(engine)
        engine.dispose()
        for name in chosen:
            print(f"{name} ...", file=sys.stderr)
            load = os.getloadavg()[0]
            print(json.dumps({"row": name, **_ROWS[name](server), "load": round(load, 1)}))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
