"""Functions in the database that delete rows for workers, whose role may not delete.

They run with the rights of the tables' owner: `rights` says who may call them. Leases are deleted
by `spending`. Border: SQL alone.
"""

from __future__ import annotations

# What another program's renaming leaves in the places that records of trials move to.
_CLEAR_RECORDS = """
CREATE OR REPLACE FUNCTION hpo.clear_records(p_study uuid, p_numbers integer[])
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM hpo.predictions WHERE study_uid = p_study AND trial_number = ANY(p_numbers);
    DELETE FROM hpo.divergences WHERE study_uid = p_study AND trial_number = ANY(p_numbers);
    DELETE FROM hpo.checkpoints WHERE study_uid = p_study AND trial_number = ANY(p_numbers);
$$
"""

# Copies of a trial's checkpoints, of some of its attempts.
_DISCARD_CHECKPOINTS = """
CREATE OR REPLACE FUNCTION hpo.discard_checkpoints(
    p_study uuid, p_number integer, p_first integer, p_last integer
) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM hpo.checkpoints WHERE study_uid = p_study AND trial_number = p_number
    AND attempt BETWEEN p_first AND p_last;
$$
"""

# Rows of workers that have ended, by process and slot.
_FORGET_WORKERS = """
CREATE OR REPLACE FUNCTION hpo.forget_workers(p_study uuid, p_processes text[], p_slots text[])
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM hpo.workers w USING unnest(p_processes, p_slots) AS gone(process, slot)
    WHERE w.study_uid = p_study AND w.process = gone.process AND w.slot = gone.slot;
$$
"""

REMOVAL = (_CLEAR_RECORDS, _DISCARD_CHECKPOINTS, _FORGET_WORKERS)
