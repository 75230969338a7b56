"""The function in the database that reads trials in columns, in one round trip.

Border: SQL alone; `history_reader` calls it.
"""

from __future__ import annotations

# What `history.Rows` holds, of the trials created after one of them and of some others; of running
# ones no more than their number and state unless `p_running`, and their rungs if `p_rungs`. It is
# STABLE, so that all of it is of one moment.
_READ = """
CREATE OR REPLACE FUNCTION hpo.read_trials(
    p_study integer, p_after integer, p_open integer[], p_running boolean, p_rungs boolean,
    p_user text[], p_system text[]
) RETURNS TABLE(kind text, name text, extra text, numbers text, "values" text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    v_ids integer[];
    v_numbers integer[];
    v_ended integer[];
    v_ended_numbers integer[];
    v_complete integer[];
    v_complete_numbers integer[];
BEGIN
    IF p_after < 0 THEN
        SELECT array_agg(t.trial_id), array_agg(t.number) INTO v_ids, v_numbers
            FROM trials t WHERE t.study_id = p_study;
    ELSE
        -- Without the sum the planner may read all trials of the study by its index.
        SELECT array_agg(t.trial_id), array_agg(t.number) INTO v_ids, v_numbers FROM (
            SELECT trial_id, number FROM trials
                WHERE trial_id > p_after AND study_id + 0 = p_study
            UNION SELECT trial_id, number FROM trials
                WHERE trial_id = ANY(p_open) AND study_id + 0 = p_study
        ) t;
    END IF;
    IF v_ids IS NULL THEN
        RETURN;
    END IF;
    SELECT array_agg(t.trial_id), array_agg(t.number),
        array_agg(t.trial_id) FILTER (WHERE t.state = 'COMPLETE'),
        array_agg(t.number) FILTER (WHERE t.state = 'COMPLETE')
        INTO v_ended, v_ended_numbers, v_complete, v_complete_numbers
        FROM trials t WHERE t.trial_id = ANY(v_ids) AND t.state NOT IN ('RUNNING', 'WAITING');
    RETURN QUERY SELECT 'trial', t.state::text, '', string_agg(t.number::text, '|'),
        string_agg(t.trial_id::text, '|') FROM trials t WHERE t.trial_id = ANY(v_ids)
        GROUP BY t.state;
    IF NOT (p_running OR p_rungs) THEN
        v_ids := v_ended;
        v_numbers := v_ended_numbers;
    END IF;
    RETURN QUERY SELECT 'system', s.key::text, '', string_agg(i.number::text, '|'),
        string_agg(replace(s.value_json, '|', ' '), '|')
        FROM unnest(v_ids, v_numbers) AS i(id, number)
        JOIN trial_system_attributes s ON s.trial_id = i.id
        WHERE s.key = ANY(p_system) OR s.key LIKE 'completed_rung_%'
        OR (s.key LIKE 'constraints%' AND i.id = ANY(v_ended)) GROUP BY s.key;
    IF NOT p_running THEN
        v_ids := v_ended;
        v_numbers := v_ended_numbers;
    END IF;
    RETURN QUERY SELECT 'param', p.param_name::text, p.distribution_json,
        string_agg(i.number::text, '|'), string_agg(p.param_value::text, '|')
        FROM unnest(v_ids, v_numbers) AS i(id, number) JOIN trial_params p ON p.trial_id = i.id
        GROUP BY p.param_name, p.distribution_json ORDER BY min(p.param_id);
    IF v_ended IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT 'user', u.key::text, '', string_agg(i.number::text, '|'),
        string_agg(CASE WHEN u.key = 'rerun_of' OR length(u.value_json) < 40
            THEN replace(u.value_json, '|', ' ') ELSE '' END, '|')
        FROM unnest(v_ended, v_ended_numbers) AS i(id, number)
        JOIN trial_user_attributes u ON u.trial_id = i.id
        WHERE u.key = ANY(p_user) GROUP BY u.key;
    RETURN QUERY SELECT 'value', '', '', string_agg(i.number::text, '|'),
        string_agg(CASE v.value_type::text WHEN 'INF_POS' THEN 'inf' WHEN 'INF_NEG' THEN '-inf'
            ELSE v.value::text END, '|')
        FROM unnest(v_ended, v_ended_numbers) AS i(id, number)
        JOIN trial_values v ON v.trial_id = i.id WHERE v.objective = 0;
    RETURN QUERY SELECT 'last', r.step::text, '', string_agg(r.number::text, '|'),
        string_agg(hpo.as_text(r.v, r.t), '|') FROM (
            SELECT DISTINCT ON (i.id) i.number, m.step, m.intermediate_value AS v,
                m.intermediate_value_type::text AS t
            FROM unnest(v_ended, v_ended_numbers) AS i(id, number)
            JOIN trial_intermediate_values m ON m.trial_id = i.id ORDER BY i.id, m.step DESC
        ) r GROUP BY r.step;
    IF v_complete IS NOT NULL THEN
        RETURN QUERY SELECT 'report', m.step::text, '', string_agg(i.number::text, '|'),
            string_agg(hpo.as_text(m.intermediate_value, m.intermediate_value_type::text), '|')
            FROM unnest(v_complete, v_complete_numbers) AS i(id, number)
            JOIN trial_intermediate_values m ON m.trial_id = i.id GROUP BY m.step;
    END IF;
END $$
"""

_AS_TEXT = """
CREATE OR REPLACE FUNCTION hpo.as_text(p_value float8, p_type text)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_type WHEN 'INF_POS' THEN 'inf' WHEN 'INF_NEG' THEN '-inf' WHEN 'NAN' THEN 'nan'
        ELSE p_value::text END
$$
"""

READING = (_AS_TEXT, _READ)
