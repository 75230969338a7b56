"""Functions in the database that end leases and count what a study has cost.

A lease is a span from its taking to its end, and to `LEASE_S` after its last beat at most. Two sums
are kept of a study's spans: the time in which at least one of them lasted (`busy`), and the time of
each, times its GPUs. A span that ends is a row of its own. One in `_EVERY` ends adds the rows so
far to the study's sums, so that a reader meets a sum and some rows, however many trials there were.

Leases are deleted here alone. The functions run with the rights of the tables' owner, for workers
whose role may not delete: `rights` says who may call them. Border: SQL alone; `tickets` calls it.
"""

from __future__ import annotations

from hpo.database.schema import LEASE_S

_EVERY = 64

_LIFE = f"make_interval(secs => {LEASE_S})"

# Of what was counted before, a span only counts its part after it. In the order of their
# beginnings, each adds what lies beyond the latest end so far.
_SPENT = f"""
CREATE OR REPLACE FUNCTION hpo.spent(
    p_study uuid, OUT busy_s float8, OUT gpu_s float8, OUT lost bigint,
    OUT max_hours float8, OUT max_gpu_hours float8
) LANGUAGE sql STABLE AS $$
    WITH sums AS (
        SELECT s.* FROM (VALUES (p_study)) AS one(uid)
        LEFT JOIN hpo.spending s ON s.study_uid = one.uid
    ), living AS (
        SELECT began, ended, gpus, lost FROM hpo.spans WHERE study_uid = p_study
        UNION ALL
        SELECT taken_at, least(now(), beat_at + {_LIFE}), gpus, 0
        FROM hpo.leases WHERE study_uid = p_study
    ), after AS (
        SELECT greatest(began, counted_until) AS began, ended FROM living, sums
    ), ordered AS (
        SELECT began, ended, max(ended) OVER (
            ORDER BY began, ended ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS latest FROM after WHERE ended > began
    ), busy AS (
        SELECT sum(greatest(0, extract(epoch FROM ended - greatest(began, latest)))) AS seconds
        FROM ordered
    ), used AS (
        SELECT sum(gpus * greatest(0, extract(epoch FROM ended - began))) AS seconds,
            sum(lost) AS lost FROM living
    )
    SELECT coalesce(sums.busy_s, 0) + coalesce(busy.seconds, 0)::float8,
        coalesce(sums.gpu_s, 0) + coalesce(used.seconds, 0)::float8,
        coalesce(sums.lost, 0) + coalesce(used.lost, 0),
        sums.max_hours, sums.max_gpu_hours
    FROM sums, busy, used
$$
"""

_IS_OVER = """
CREATE OR REPLACE FUNCTION hpo.is_over(p_study uuid)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(busy_s >= 3600 * max_hours, false)
        OR coalesce(gpu_s >= 3600 * max_gpu_hours, false) FROM hpo.spent(p_study)
$$
"""

# Whoever finds the row locked leaves the spans to the next one. What is read and what is deleted is
# of one statement, and so of one moment.
_FOLD = """
CREATE OR REPLACE FUNCTION hpo.fold_spans(p_study uuid)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM hpo.spending WHERE study_uid = p_study FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        INSERT INTO hpo.spending (study_uid) VALUES (p_study) ON CONFLICT DO NOTHING;
        RETURN;
    END IF;
    WITH found AS (SELECT busy_s FROM hpo.spent(p_study)),
    gone AS (DELETE FROM hpo.spans WHERE study_uid = p_study RETURNING *),
    used AS (
        SELECT coalesce(sum(gpus * greatest(0, extract(epoch FROM ended - began))), 0) AS seconds,
            coalesce(sum(lost), 0) AS lost FROM gone
    )
    UPDATE hpo.spending s SET busy_s = found.busy_s, gpu_s = s.gpu_s + used.seconds::float8,
        lost = s.lost + used.lost, counted_until = greatest(s.counted_until, now())
    FROM found, used WHERE s.study_uid = p_study;
END $$
"""

# `p_lost` is 1 for leases of lost workers.
_END_LEASES = f"""
CREATE OR REPLACE FUNCTION hpo.end_leases(p_runs uuid[], p_lost integer)
RETURNS TABLE(study uuid, number integer, saved integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_study uuid;
BEGIN
    RETURN QUERY WITH gone AS (
        DELETE FROM hpo.leases WHERE run_uid = ANY(p_runs) RETURNING *
    ), noted AS (
        INSERT INTO hpo.spans (run_uid, study_uid, began, ended, gpus, lost)
        SELECT run_uid, study_uid, taken_at,
            greatest(taken_at, least(now(), beat_at + {_LIFE})), gpus, p_lost FROM gone
        ON CONFLICT DO NOTHING
    )
    SELECT study_uid, ticket, coalesce(saved_step, 0) FROM gone;
    IF random() * {_EVERY} < cardinality(p_runs) THEN
        FOR v_study IN SELECT DISTINCT study_uid FROM hpo.spans WHERE run_uid = ANY(p_runs) LOOP
            PERFORM hpo.fold_spans(v_study);
        END LOOP;
    END IF;
END $$
"""

# The condition that a study's budget is spent. Without limits it looks up one row.
OVER = """EXISTS (
    SELECT FROM hpo.spending b WHERE b.study_uid = CAST(:study_uid AS uuid)
    AND (b.max_hours IS NOT NULL OR b.max_gpu_hours IS NOT NULL) AND hpo.is_over(b.study_uid)
)"""

SPENDING = (_SPENT, _IS_OVER, _FOLD, _END_LEASES)
