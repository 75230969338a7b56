"""Every row of a trial that a worker writes is written by a function that checks the lease."""

from __future__ import annotations

import pytest

from hpo.database.connection import connect
from tests.support.program import ROOT, Program
from tests.support.studies import trials

pytestmark = pytest.mark.acceptance
FRAGILE = str(ROOT / "tests" / "support" / "fragile.py")
TABLES = (
    *("trials", "trial_params", "trial_values", "trial_intermediate_values"),
    *("trial_user_attributes", "trial_system_attributes"),
)


def refuse_other_writes(url: str) -> None:
    """Have the server refuse what neither `begin_trial` nor `write_trial` writes to a trial."""
    with connect(url).begin() as connection:
        connection.exec_driver_sql("""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE callers text;
            BEGIN
                GET DIAGNOSTICS callers = PG_CONTEXT;
                IF callers !~ '(begin|write)_trial' THEN
                    RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' was written without a fence';
                END IF;
                RETURN NEW;
            END $$
        """)
        for table in TABLES:
            connection.exec_driver_sql(
                f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table}"
                " FOR EACH ROW EXECUTE FUNCTION refuse()"
            )


@pytest.mark.parametrize("flags", [(), ("--on_precision_range", "rerun")])
def test_a_trial_that_diverges_is_written_under_the_fence_alone(
    program: Program, url: str, flags: tuple[str, ...]
):
    refuse_other_writes(url)

    ran = program(
        *("--objective", FRAGILE, "--fault", "fp16", "--precision", "fp16", "--study_name", "s"),
        *("--n_trials", "4", "--epochs_per_trial", "2", "--size", "tiny", "--pruner", "none"),
        *("--pause_s", "0", "--workers", "1", *flags),
    )

    assert ran.returncode == 0, ran.stderr
    assert any(t.user_attrs["prune_reason"] == "precision_range" for t in trials(url, "s"))
