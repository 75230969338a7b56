"""Faults of a fleet, of its database and of other programs, against real runs.

Each of these was seen on an earlier version. `benchmarks/campaign.py` has those that take minutes.

1. Another program ends or deletes a running trial. Before: each worker that took the ticket died,
   for ever. Now: the worker drops it, the ticket ends in its state or is given out anew.
   (faults/test_outside)
2. A study is copied, renamed or deleted. Before: two studies shared tickets; one ended with 5 of 7
   trials. Now: a copy has its own budget, a renamed study goes on, a deletion is one sentence.
   (study/test_identity, study/test_leftovers)
3. Another program enqueues or adds trials. Before: ignored without a word. Now: they take free
   tickets, or N grows and the run says so. (faults/test_outside, database/test_fence)
4. A frozen worker comes back. Before: it overwrote its successor's records and checkpoint. Now:
   every write is fenced, each attempt has its own file. (database/test_fence,
   engine/test_checkpoint_files)
5. Workers are killed, or killed by their trial. Before: the fifth death of any kind failed the
   trial. Now: what the trial may have done counts, until a newer checkpoint. (faults/test_liveness,
   tickets/test_losses)
6. A step hangs, a trial takes too long. Before: the ticket was held for ever. Now: `--stall` ends
   it with a stack, `--trial_timeout` prunes. (faults/test_liveness)
7. Beats fail, for whatever reason. Before: a thread died silently. Now: the worker fences itself by
   its own clock. (worker/test_heartbeat)
8. Workers die again and again. Before: three quick deaths ended a host's run. Now: kills back off,
   a bad slot is retired. (fleet/test_seats, faults/test_liveness)
9. Connections break, the server is away. Before: one `pg_terminate_backend` ended a fleet. Now: all
   of it is retried for `--patience`. (faults/test_database, embedded/test_outages,
   worker/test_reports)
10. The server takes no writes, its disk is full. Before: the run ended within a second. Now: waited
   for, by SQLSTATE. (faults/test_database, database/test_faults)
11. Another session locks tables, connections run out. Before: everything stopped, Ctrl-C too. Now:
   waited for in short statements; two connections a worker, three a run. (faults/test_database,
   database/test_connections, database/test_pgbouncer)
12. Foreign tables, missing rights. Before: half of the tables were created. Now: one line with the
   cure, and nothing is touched. (database/test_preconditions)
13. A rebound name reaches the dashboard. Before: a study was deleted. Now: hosts, origins and
   writes are checked. (dashboard/test_door, dashboard/test_server)
"""
