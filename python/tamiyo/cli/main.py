"""The `tamiyo` command: one file per subcommand, put together here."""

from importlib.metadata import version
from typing import Annotated

import typer

from tamiyo.cli.bench import bench
from tamiyo.cli.demo import demo
from tamiyo.cli.evaluate import evaluate
from tamiyo.cli.inspect import inspect
from tamiyo.cli.train import train

__all__ = ["app"]

app = typer.Typer(
    name="tamiyo",
    help="A strategic controller for neural networks in training.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tamiyo {version('tamiyo')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


app.add_typer(bench, name="bench")
app.command()(demo)
app.command()(evaluate)
app.command()(inspect)
app.command()(train)
