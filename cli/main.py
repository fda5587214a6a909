"""`tidegate`: every command of the project."""

import sys

import typer

from cli import api, bench, demo, features, generate, models, schemas, settings, state, topics, train, worker
from cli.console import fail
from schemas.errors import TidegateError

app = typer.Typer(
    name="tidegate",
    help="Streaming fraud and churn scores for a bank. Settings come from options or TIDEGATE_* variables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo.demo)
app.command()(worker.worker)
app.command()(api.api)
app.command()(generate.generate)
# publish
app.command()(train.train)
app.command()(settings.settings)
app.add_typer(topics.app, name="topics", help="Topics on the broker.")
app.add_typer(features.app, name="features", help="Feature declarations.")
app.add_typer(models.app, name="models", help="The model registry.")
app.add_typer(bench.app, name="bench", help="Measurements.")
app.add_typer(state.app, name="state", help="What Redis holds.")
app.add_typer(schemas.app, name="schemas", help="Message schemas.")


def main() -> None:
    """Run a command; an error of ours is one sentence and exit code 2, never a traceback."""
    try:
        app()
    except TidegateError as error:
        fail(str(error))
        sys.exit(2)


if __name__ == "__main__":
    main()
