"""``citybrain keys`` and ``citybrain audit``."""

from __future__ import annotations

import getpass
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from citybrain_serving.errors import SafetyError
from citybrain_serving.safety.audit import Broken, Head, entry
from citybrain_serving.safety.audit_archive import archive, archived
from citybrain_serving.safety.keys import KeyRing
from citybrain_serving.safety.opening import audit_of, open_store, read_store
from citybrain_serving.safety.roles import Role
from citybrain_serving.settings import Settings, load_settings

StoreOption = Annotated[str | None, typer.Option(help="The service's store: a path or a database URL.")]

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")
audit = typer.Typer(no_args_is_help=True, help="Read, verify and archive the audit log.")


@keys.command()
def create(
    role: Annotated[Role, typer.Option(help="What the key may do.")],
    name: Annotated[str, typer.Option(help="Who or what holds it; stands in the audit log.")],
    owner: Annotated[
        list[str] | None, typer.Option(help="Act for this owner's segments only; may be given again.")
    ] = None,
    days: Annotated[float | None, typer.Option(min=0.001, help="Days until it expires; never by default.")] = None,
    store: StoreOption = None,
) -> None:
    """Make a key. Its text is shown this once and kept nowhere."""
    settings = load_settings({"store": store})
    ring = KeyRing(open_store(settings))
    first = not ring.any()
    key, text = ring.create(name, role, owner, days)
    _record(settings, "key created", id=key.id, name=key.name, role=str(key.role), owners=owner, days=days)
    typer.echo(text)
    if first:
        typer.echo("This is the first key: a service that is running takes it after a restart.", err=True)


@keys.command("list")
def list_keys(store: StoreOption = None) -> None:
    """List keys, without their secrets."""
    ring = KeyRing(read_store(load_settings({"store": store})))
    table = Table(Column("id", no_wrap=True), "name", "role", "owners", "created", "expires", "state")
    for key in ring.list():
        state = "revoked" if key.revoked else "good" if key.alive(ring.now()) else "expired"
        owners = "all" if key.owners is None else ", ".join(key.owners)
        table.add_row(key.id, key.name, key.role, owners, _day(key.created), _day(key.expires), state)
    Console().print(table)


@keys.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The id, between the first two underscores of the key.")],
    store: StoreOption = None,
) -> None:
    """Revoke a key; services notice within half a minute."""
    settings = load_settings({"store": store})
    revoked = KeyRing(open_store(settings, new=False)).revoke(key)
    _record(settings, "key revoked", id=revoked.id, name=revoked.name)
    typer.echo(f"{revoked.id} ({revoked.name}) is revoked.")


@audit.command()
def verify(
    head: Annotated[
        str | None, typer.Option(help="A head noted before, as NUMBER:SEAL; the log must contain it.")
    ] = None,
    archives: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of the entries that were archived.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Walk the whole chain and change nothing; exit code 2 where an entry was edited, removed, added or moved."""
    settings = load_settings({"store": store})
    log = audit_of(settings, read_store(settings))
    moved = None if archives is None else archived(archives)
    found = log.verify(None if head is None else _noted(head), moved)
    if isinstance(found, Broken):
        raise SafetyError(f"the audit log was tampered with: {found.what}")
    cut = 0 if archives is not None else log.cut().number
    told = f"{found.number} entries" if not cut else f"entries {cut + 1} to {found.number}"
    typer.echo(f"{told}, unbroken. Head {found.number}:{found.seal}")
    if cut:
        typer.echo(f"Entries up to {cut} were archived; --archives verifies them too.", err=True)


@audit.command("archive")
def archive_entries(
    before: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First day that stays, UTC.")],
    out: Annotated[Path, typer.Option(help="Folder for the file; the same each time.")],
    store: StoreOption = None,
) -> None:
    """Move entries of the days before a date into a file; what stays goes on from there, and says so."""
    settings = load_settings({"store": store})
    log = audit_of(settings, open_store(settings, new=False))
    done = archive(log, before.date(), out, f"command:{getpass.getuser()}")
    if done is None:
        typer.echo("There is nothing that old.")
    else:
        typer.echo(f"{done.path}: entries {done.first} to {done.last}.")


@audit.command()
def show(
    first: Annotated[
        int | None, typer.Option(min=1, help="Number of the first entry; by default the newest are shown.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 100,
    store: StoreOption = None,
) -> None:
    """Print entries, one JSON object a line."""
    settings = load_settings({"store": store})
    log = audit_of(settings, read_store(settings))
    for number, told in log.read(max(1, log.head().number - most + 1) if first is None else first, most):
        typer.echo(json.dumps({"number": number, **told}, ensure_ascii=False))


def _record(settings: Settings, what: str, **details: object) -> None:
    who = f"command:{getpass.getuser()}"
    audit_of(settings, open_store(settings)).append([entry(who, what, **details)])


def _noted(text: str) -> Head:
    number, _, seal = text.partition(":")
    if not number.isdigit() or len(seal) != 64:
        raise SafetyError(f"head {text[:80]!r} must be NUMBER:SEAL, as `citybrain audit verify` prints it")
    return Head(int(number), seal)


def _day(seconds: int | None) -> str:
    return "never" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
