"""`python -m config`: what a run would do with its settings, without starting anything."""

from typing import Annotated, Any

import typer

from data.commands import run_command_line, several_commands

app = several_commands("The settings of a run.", "python -m config check -c \"preset='notebook' lr=0.1\" --clients 100")


@app.callback()
def settings() -> None:
    """Look at the settings of a run."""


@app.command(epilog="Example: python -m config check -c \"method='elr' learning-rate=0.01\" --clients 10")
def check(
    config: Annotated[
        list[str] | None,
        typer.Option("--config", "-c", help="As for `flwr run -c`: key=value pairs, or a TOML file; repeatable."),
    ] = None,
    clients: Annotated[int | None, typer.Option(help="Number of clients.", min=1, max=10**9)] = None,
    federation: Annotated[
        list[str] | None,
        typer.Option("--federation", "--federation-config", help="As for `flwr run`: `num-supernodes=10`; repeatable."),
    ] = None,
) -> None:
    """Say all that is wrong with the settings of a run, at once; exit code 1 if anything is.

    Nothing is started, drawn or written. If all is well, the keys that differ from the defaults are printed, and
    what the log of the run would advise.
    """
    from config.advice import advice_on_learning_rate  # `--help` does without
    from config.check import differences, examine
    from config.federation import CLIENTS, problems_of_federation
    from config.known import METHODS
    from config.pairs import read_pairs
    from config.resolve import app_defaults

    values, problems = read_pairs("-c", config or [])
    of_flower, unread = read_pairs("--federation-config", federation or [])
    resolved, wrong = examine(values, app_defaults())
    problems += [*wrong, *unread]
    if federation:
        problems += problems_of_federation(of_flower)
        clients = clients or (of_flower.get(CLIENTS, 2) if not problems else None)
    notes = [] if problems or resolved.resume else _look_at_data(resolved, clients, problems)
    if resolved.method in METHODS and not resolved.resume:
        notes = [*advice_on_learning_rate(resolved, METHODS[resolved.method], values), *notes]
    for line in problems:
        typer.echo(line, err=True)
    if problems:
        raise typer.Exit(1)
    for key, value in differences(resolved).items():
        typer.echo(f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}")
    for note in notes:
        typer.echo(note)


def _look_at_data(resolved: Any, clients: int | None, problems: list[str]) -> list[str]:
    """Add what is wrong with the data, and say what was not looked at."""
    from config.architectures import TIMM
    from config.check_data import is_elsewhere, is_quick, problems_of_data

    if not clients and is_elsewhere(resolved):
        return ["No fault found, for real nodes: 'data-dir' is not on this machine, but the server would not read it."]
    if not is_quick(resolved):
        return ["No fault found; 'data-dir' is too large to be read here: `python -m data check` does that."]
    if clients and resolved.num_clients not in (0, clients):
        problems.append(f"run config: 'num-clients' is {resolved.num_clients}, but there are {clients} clients.")
    problems += problems_of_data(resolved, clients)
    if resolved.model.startswith(TIMM):
        return ["No fault found; networks of timm are tried when the run starts."]
    return ["No fault found." if clients else "No fault found; --clients also looks at what each client would hold."]


def main() -> None:
    run_command_line(app, "python -m config", ())


if __name__ == "__main__":
    main()
