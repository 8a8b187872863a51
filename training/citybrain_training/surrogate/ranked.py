"""``citybrain track-ranking``: a scoring run kept in MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from citybrain_datasets.errors import ConfigError
from citybrain_datasets.scenarios.outcomes import OUTCOMES


def track_ranking(
    ranking: Annotated[Path, typer.Argument(help="Parquet file that `citybrain score` wrote")],
    experiment: Annotated[
        str | None, typer.Option(help="name of the MLflow experiment", show_default="CITY-scenarios")
    ] = None,
    home: Annotated[Path, typer.Option(help="folder of MLflow's database when MLFLOW_TRACKING_URI is not set")] = Path(
        "runs"
    ),
) -> None:
    """Log a ranking to MLflow: what was asked, what the best would do, and its files as artifacts."""
    about, table = read_ranking(ranking)
    import mlflow

    from citybrain_training.tracking import Tracking

    tracking = Tracking(home, experiment or f"{about['city']}-scenarios")
    with tracking.run(ranking.stem) as logger:
        tracking.parameters(about)
        best = table.slice(0, 1).to_pylist()[0]
        mlflow.set_tag("best", best["id"])
        mlflow.log_metrics(
            {f"best/{name}_change": best[f"{name}_change"] for name in OUTCOMES if best[name] == best[name]}
        )
        mlflow.log_metric("outside", sum(bool(why) for why in table["outside"].to_pylist()))
        for path in (ranking, ranking.with_suffix(".html"), ranking.with_name(f"{ranking.stem}.verified.parquet")):
            if path.exists():
                mlflow.log_artifact(str(path))
        typer.echo(logger.run_id)


def read_ranking(path: Path) -> tuple[dict[str, object], pa.Table]:
    """What a ranking is about, and its rows. Raises :class:`ConfigError` for a file that is none."""
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[b"citybrain"])
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: is no ranking of `citybrain score`: {error}") from None
    if not table.num_rows or "rank" not in table.schema.names:
        raise ConfigError(f"{path}: is no ranking of `citybrain score`: it holds no rank")
    return about, table
