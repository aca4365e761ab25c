"""`course doctor`: a one-screen report of the machine."""

import click


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def doctor(as_json: bool) -> int:
    """Tell what works on this machine and what to fix, a line each.

    Python, packages, PyTorch, device, threads, memory, disk, data, kernel. Works before the data are there. Exit
    status 1 if something that the lessons need is missing.
    """
    from lib.course.setup import machine as module

    findings = module.examine()
    click.echo(module.as_json(findings) if as_json else module.report(findings))
    return 0 if module.healthy(findings) else 1
