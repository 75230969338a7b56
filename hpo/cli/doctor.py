"""`doctor`: check that this machine and its database are fit for a study."""

from __future__ import annotations

import click

from hpo.cli.shared import Command, json_option, storage_option
from hpo.errors import ConfigurationError


@click.command(cls=Command)
@storage_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, storage: str | None, as_json: bool) -> None:
    """Examine this machine and the database: what is there, what is wrong, what cures it.

    Starts the embedded server where no storage is named. Exits with 2 if a check failed.

    \b
    Example:
        python -m hpo doctor
    """
    import json
    from dataclasses import asdict

    from hpo.display.doctor import print_finding, print_summary
    from hpo.doctor.diagnose import diagnose

    findings = []
    for finding in diagnose(storage):
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
