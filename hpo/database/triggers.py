"""Triggers of schema `hpo`, which the server executes itself.

Border: definitions alone, each safe to repeat. `migrations` executes all of them whenever it
creates tables or brings them to this version.

A trigger on the tickets notifies whoever waits for one of a study's tickets. A NOTIFY holds a lock
of the whole database from the beginning of a commit to its end, so a trial on its way sends none:
only a ticket that is open again, new tickets, and the end of the last ones do.
"""

from __future__ import annotations

# Two of a study's last trials that end at the same moment do not see each other's end. With a few
# others still running the end is told all the same.
_LAST = 4

# Each channel is a study's, named by its uid; see `notices`.
_TELL_OF_ONE = f"""
CREATE OR REPLACE FUNCTION hpo.tell_of_ticket() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state = 'open' THEN
        PERFORM pg_notify('hpo ' || NEW.study_uid::text, 'open');
    ELSIF NOT EXISTS (
        SELECT FROM hpo.tickets WHERE study_uid = NEW.study_uid AND state = 'open'
    ) AND (SELECT count(*) FROM (
        SELECT FROM hpo.leases
        WHERE study_uid = NEW.study_uid AND ticket <> NEW.ticket LIMIT {_LAST}
    ) AS others) < {_LAST} THEN
        PERFORM pg_notify('hpo ' || NEW.study_uid::text, 'ended');
    END IF;
    RETURN NULL;
END $$
"""
_TELL_OF_NEW = """
CREATE OR REPLACE FUNCTION hpo.tell_of_tickets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('hpo ' || study_uid::text, 'open')
    FROM (SELECT DISTINCT study_uid FROM added WHERE state = 'open') AS opened;
    RETURN NULL;
END $$
"""

TRIGGERS = (
    _TELL_OF_ONE,
    _TELL_OF_NEW,
    "DROP TRIGGER IF EXISTS tell_of_ticket ON hpo.tickets",
    # The condition is checked without a call, so that taking a ticket costs nothing here.
    "CREATE TRIGGER tell_of_ticket AFTER UPDATE OF state ON hpo.tickets FOR EACH ROW"
    " WHEN (OLD.state <> NEW.state AND NEW.state <> 'leased'"
    " AND (NEW.state = 'open' OR OLD.state = 'leased'))"
    " EXECUTE FUNCTION hpo.tell_of_ticket()",
    "DROP TRIGGER IF EXISTS tell_of_tickets ON hpo.tickets",
    "CREATE TRIGGER tell_of_tickets AFTER INSERT ON hpo.tickets"
    " REFERENCING NEW TABLE AS added FOR EACH STATEMENT"
    " EXECUTE FUNCTION hpo.tell_of_tickets()",
)
