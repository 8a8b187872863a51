"""``citybrain store``: what a person does to the store now and then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from citybrain_serving.archive import archive as move
from citybrain_serving.backup import backup as copy
from citybrain_serving.database import migrate, open_engine
from citybrain_serving.errors import FleetError
from citybrain_serving.safety.opening import open_store
from citybrain_serving.settings import load_settings

app = typer.Typer(help="Look after the store of observations.", no_args_is_help=True)

Store = Annotated[str | None, typer.Option(help="A path or a database URL; as for `citybrain serve`.")]


@app.command()
def upgrade(store: Store = None) -> None:
    """Bring the store to the schema of this version; `serve` does so by itself."""
    migrate(open_engine(load_settings({"store": store}).store, new=False))
    typer.echo("The store has the schema of this version.")


@app.command()
def backup(
    out: Annotated[Path, typer.Argument(help="The copy; it must not be there yet.")],
    store: Store = None,
) -> None:
    """Copy an SQLite store while the service goes on; to restore, stop the service and put the copy in its place."""
    size = copy(open_engine(load_settings({"store": store}).store, new=False, reading=True), out)
    typer.echo(f"{out}: {size:,} bytes, checked.")


@app.command()
def archive(
    before: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First day that stays, UTC.")],
    out: Annotated[Path, typer.Option(help="Folder for the Parquet files.")],
    keep: Annotated[bool, typer.Option("--keep", help="Leave the observations in the store too.")] = False,
    store: Store = None,
) -> None:
    """Move observations of the days before a date into Parquet, a file for each signal and day.

    The days of which readings are still taken (the setting `oldest_days`) stay in the store: forecasts read them, and
    what is sent again would not be known there any more.
    """
    settings = load_settings({"store": store})
    stays = (datetime.now(UTC) - timedelta(days=settings.oldest_days)).date()
    if before.date() > stays and not keep:
        raise FleetError(
            f"--before {before.date()}: readings since {stays} are still taken and read (the setting oldest_days);"
            f" move what is before that day, or copy with --keep"
        )
    engine = open_store(settings, new=False)
    done = move(engine, before.date(), out, keep=keep, tell=typer.echo)
    typer.echo(f"{done.frames} frames in {done.files} files.")
