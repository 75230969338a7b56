"""`doctor`: check that this machine and its database are fit for a study."""

from __future__ import annotations

import click

from hpo.cli.shared import Command, json_option, storage_option, study_option
from hpo.errors import ConfigurationError


@click.command(cls=Command)
@storage_option
@click.option(
    "--fleet",
    is_flag=True,
    help="compare the hosts that work or worked on a study: code, packages, clocks, checkpoints",
)
@study_option
@json_option
@click.pass_context
def doctor(
    ctx: click.Context, storage: str | None, fleet: bool, study_name: str | None, as_json: bool
) -> None:
    """Examine this machine and the database: what is there, what is wrong, what cures it.

    Starts the embedded server where no storage is named. Exits with 2 if a check failed.

    \b
    Examples:
        python -m hpo doctor
        python -m hpo doctor --fleet --study_name mine
    """
    import json
    from dataclasses import asdict

    from hpo.display.doctor import print_finding, print_summary
    from hpo.doctor.diagnose import compare_hosts, diagnose

    if study_name is not None and not fleet:
        raise click.UsageError("--study_name belongs to --fleet", ctx)
    findings = []
    for finding in compare_hosts(storage, study_name) if fleet else diagnose(storage):
        findings.append(finding)
        if not as_json:
            print_finding(finding)
    is_well = all(finding.state != "failed" for finding in findings)
    if as_json:
        found = {"ok": is_well, "checks": [asdict(finding) for finding in findings]}
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        print_summary(findings)
    if not is_well:
        ctx.exit(ConfigurationError.exit_code)
