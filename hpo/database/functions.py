"""Functions in the database by which a worker writes its trial, each in one round trip.

A transaction that locks, looks and then writes needs an answer before its next statement: 7 to 12
round trips for what is one call here, with plans that the server keeps. Optuna's tables are found
by the caller's `search_path`. Border: SQL alone; `trial_writer` calls it,
`reading` has the function that reads.
"""

from __future__ import annotations

# The owner of a trial holds a lease, locked first; then its trial, so that no other program ends it
# before the commit. Returned instead of writing: `lost`, `gone`, or the state in which another
# program ended it; `done` where an earlier try has ended it, but its answer was lost.
_WRITE = """
CREATE OR REPLACE FUNCTION hpo.write_trial(p_run uuid, p_trial integer, p_content json, p_end json)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_state text;
    v_refusal text;
BEGIN
    PERFORM 1 FROM hpo.leases WHERE run_uid = p_run FOR UPDATE;
    IF NOT FOUND THEN
        v_refusal := 'lost';
    ELSE
        SELECT state::text INTO v_state FROM trials WHERE trial_id = p_trial FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RETURN 'gone';
        ELSIF v_state NOT IN ('RUNNING', 'WAITING') THEN
            v_refusal := v_state;
        END IF;
    END IF;
    IF v_refusal IS NOT NULL THEN
        RETURN CASE WHEN hpo.has_ended(p_end) THEN 'done' ELSE v_refusal END;
    END IF;
    INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
        SELECT p_trial, n, v, d
        FROM json_to_recordset(p_content->'params') AS x(n text, v float8, d text)
        ON CONFLICT (trial_id, param_name) DO UPDATE
        SET param_value = excluded.param_value, distribution_json = excluded.distribution_json;
    PERFORM hpo.set_attributes(p_trial, p_content->'user', p_content->'system');
    INSERT INTO trial_intermediate_values
        (trial_id, step, intermediate_value, intermediate_value_type)
        SELECT p_trial, s, v, t::trialintermediatevaluetype
        FROM json_to_recordset(p_content->'reports') AS x(s integer, v float8, t text)
        ON CONFLICT (trial_id, step) DO UPDATE
        SET intermediate_value = excluded.intermediate_value,
            intermediate_value_type = excluded.intermediate_value_type;
    INSERT INTO hpo.metrics (run_uid, epoch, study_uid, ticket, step, "values")
        SELECT r, e, u, t, s, v
        FROM json_to_recordset(p_content->'metrics')
            AS x(r uuid, e integer, u uuid, t integer, s integer, v jsonb)
        ON CONFLICT DO NOTHING;
    IF p_end IS NOT NULL THEN
        INSERT INTO trial_values (trial_id, objective, value, value_type)
            SELECT p_trial, o, v, t::trialvaluetype
            FROM json_to_recordset(p_end->'values') AS x(o integer, v float8, t text)
            ON CONFLICT (trial_id, objective) DO UPDATE
            SET value = excluded.value, value_type = excluded.value_type;
        UPDATE trials SET state = (p_end->>'state')::trialstate,
            datetime_complete = timezone('UTC', now()) WHERE trial_id = p_trial;
        PERFORM hpo.end_ticket(p_run, p_end);
    END IF;
    RETURN NULL;
END $$
"""

# Optuna shows attributes in the order of their ids, which is that of writing.
_SET_ATTRIBUTES = """
CREATE OR REPLACE FUNCTION hpo.set_attributes(p_trial integer, p_user json, p_system json)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trial_user_attributes (trial_id, key, value_json)
        SELECT p_trial, key, value FROM json_each_text(p_user)
        ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json;
    INSERT INTO trial_system_attributes (trial_id, key, value_json)
        SELECT p_trial, key, value FROM json_each_text(p_system)
        ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json;
END $$
"""

# A ticket ends with its trial, unless another trial repeats the configuration (`rerun_of`).
_END_TICKET = """
CREATE OR REPLACE FUNCTION hpo.end_ticket(p_run uuid, p_end json)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_study uuid := p_end->>'study_uid';
    v_ticket integer := p_end->>'ticket';
BEGIN
    IF p_end->>'rerun_of' IS NOT NULL THEN
        UPDATE hpo.tickets SET trial_number = NULL, losses = 0, silences = 0, saved_step = 0,
            cause = NULL, rerun_of = (p_end->>'rerun_of')::integer
            WHERE study_uid = v_study AND ticket = v_ticket;
        UPDATE hpo.leases SET saved_step = NULL WHERE run_uid = p_run;
    ELSE
        UPDATE hpo.tickets SET state = p_end->>'outcome'
            WHERE study_uid = v_study AND ticket = v_ticket;
        PERFORM hpo.end_leases(ARRAY[p_run], 0);
    END IF;
END $$
"""

# Every attempt at a ticket has its own number.
_HAS_ENDED = """
CREATE OR REPLACE FUNCTION hpo.has_ended(p_end json)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT p_end IS NOT NULL AND EXISTS (
        SELECT 1 FROM hpo.tickets t
        WHERE t.study_uid = (p_end->>'study_uid')::uuid AND t.ticket = (p_end->>'ticket')::integer
        AND t.attempt = (p_end->>'attempt')::integer
        AND CASE WHEN p_end->>'rerun_of' IS NULL THEN t.state NOT IN ('open', 'leased')
            ELSE t.trial_number IS NULL AND t.rerun_of = (p_end->>'rerun_of')::integer END
    )
$$
"""

# A number is above all earlier ones, also after a deletion. The study's row is locked, as Optuna
# locks it; of the trials only those that other programs created since the last call are looked at.
_FREE_NUMBER = """
CREATE OR REPLACE FUNCTION hpo.free_number(p_study integer, p_uid uuid)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_last integer;
    v_next integer;
    v_highest integer;
    v_id integer;
BEGIN
    SELECT last_trial_id, next_number INTO v_last, v_next FROM hpo.identities
        WHERE study_uid = p_uid AND study_id = p_study;
    IF v_last IS NULL THEN
        SELECT max(number), max(trial_id) INTO v_highest, v_id FROM trials
            WHERE study_id = p_study;
    ELSE
        SELECT max(number), max(trial_id) INTO v_highest, v_id FROM trials
            WHERE trial_id > v_last AND study_id + 0 = p_study;
    END IF;
    v_next := greatest(coalesce(v_next, 0), coalesce(v_highest + 1, 0));
    UPDATE hpo.identities SET next_number = v_next + 1,
        last_trial_id = greatest(v_id, last_trial_id)
        WHERE study_uid = p_uid AND study_id = p_study;
    RETURN v_next;
END $$
"""

# `p_waiting` holds further system attributes of a trial that another program enqueued; given them,
# the first one that waits is begun in place of a new trial. Without `p_system` none is begun: the
# ticket of a study that was renamed meanwhile may have lost its trial. The refusals are those of
# `write_trial` and `deleted` for the study.
_BEGIN = """
CREATE OR REPLACE FUNCTION hpo.begin_trial(
    p_run uuid, p_uid uuid, p_ticket integer, p_study integer,
    p_user json, p_system json, p_waiting json,
    OUT refusal text, OUT id integer, OUT number integer, OUT is_new boolean, OUT began timestamp
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_number integer;
    v_state text;
BEGIN
    is_new := false;
    PERFORM 1 FROM hpo.leases WHERE run_uid = p_run FOR UPDATE;
    IF NOT FOUND THEN
        refusal := 'lost';
        RETURN;
    END IF;
    SELECT t.trial_number INTO v_number FROM hpo.tickets t
        WHERE t.study_uid = p_uid AND t.ticket = p_ticket;
    IF v_number IS NOT NULL THEN
        -- Where another program repeated a number after a deletion, the first trial is this one.
        SELECT t.trial_id, t.state::text INTO id, v_state FROM trials t
            WHERE t.study_id = p_study AND t.number = v_number
            ORDER BY t.trial_id LIMIT 1 FOR NO KEY UPDATE;
        refusal := CASE WHEN id IS NULL THEN 'gone'
            WHEN v_state NOT IN ('RUNNING', 'WAITING') THEN v_state END;
        number := v_number;
        RETURN;
    END IF;
    IF p_system IS NULL THEN
        refusal := 'gone';
        RETURN;
    END IF;
    PERFORM 1 FROM studies WHERE study_id = p_study FOR UPDATE;
    IF NOT FOUND THEN
        refusal := 'deleted';
        RETURN;
    END IF;
    IF p_waiting IS NOT NULL THEN
        SELECT t.trial_id, t.number INTO id, v_number FROM trials t
            WHERE t.study_id = p_study AND t.state = 'WAITING'
            ORDER BY t.number LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
    END IF;
    began := timezone('UTC', now());
    IF id IS NOT NULL THEN
        IF EXISTS (SELECT 1 FROM trials t
            WHERE t.study_id = p_study AND t.number = v_number AND t.trial_id <> id) THEN
            v_number := hpo.free_number(p_study, p_uid);
        END IF;
        UPDATE trials t SET state = 'RUNNING', datetime_start = began, number = v_number
            WHERE t.trial_id = id;
        PERFORM hpo.set_attributes(id, p_user, p_system);
        PERFORM hpo.set_attributes(id, NULL, p_waiting);
    ELSE
        v_number := hpo.free_number(p_study, p_uid);
        INSERT INTO trials (number, study_id, state, datetime_start)
            VALUES (v_number, p_study, 'RUNNING', began) RETURNING trial_id INTO id;
        PERFORM hpo.set_attributes(id, p_user, p_system);
        is_new := true;
    END IF;
    PERFORM hpo.set_attributes(id, NULL, json_build_object('hpo:number', v_number::text));
    UPDATE hpo.tickets t SET trial_number = v_number
        WHERE t.study_uid = p_uid AND t.ticket = p_ticket;
    number := v_number;
END $$
"""

FUNCTIONS = (
    *(_HAS_ENDED, _SET_ATTRIBUTES, _END_TICKET, _WRITE),
    *(_FREE_NUMBER, _BEGIN),
)
