"""What cannot be served is refused before a socket is opened, and what can needs no torch."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from citybrain_datasets.errors import CityBrainError, ConfigError
from citybrain_datasets.signals import Ticks
from citybrain_serving.bench.processes import service, wait_for
from citybrain_serving.commands import serve
from citybrain_serving.errors import FleetError
from citybrain_serving.fleet import Fleet
from citybrain_serving.settings import Settings, load_settings


def test_two_bundles_for_one_task_are_refused(bundles):
    with pytest.raises(FleetError, match="two bundles forecast pm25"):
        Fleet.of([bundles["pm25"], bundles["pm25"]])


def test_bundles_of_different_cities_are_refused(bundles):
    elsewhere = replace(bundles["pm25"], city=bundles["pm25"].city.replace(name="elsewhere"))
    with pytest.raises(FleetError, match="'small' and 'elsewhere'"):
        Fleet.of([bundles["congestion"], elsewhere])


def test_bundles_that_disagree_about_nodes_are_refused(bundles):
    city = bundles["pm25"].city
    turned = city.replace(nodes={**city.nodes, "road": city.nodes["road"].iloc[::-1]})
    with pytest.raises(FleetError, match="road nodes or their order"):
        Fleet.of([bundles["congestion"], replace(bundles["pm25"], city=turned)])


def test_bundles_that_disagree_about_a_clock_are_refused(bundles):
    clocks = {**bundles["pm25"].clocks, "speed": Ticks(10)}
    with pytest.raises(FleetError, match="how often speed"):
        Fleet.of([bundles["congestion"], replace(bundles["pm25"], clocks=clocks)])


def test_a_signal_that_does_not_fit_into_a_step_is_refused(bundles):
    with pytest.raises(FleetError, match="cannot be put"):
        Fleet.of([replace(bundles["congestion"], clocks={"speed": Ticks(7)})])


def test_no_bundle_is_refused():
    with pytest.raises(FleetError, match="no bundle"):
        Fleet.of([])


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path):
    with pytest.raises(CityBrainError, match="no bundle folder"):
        serve([tmp_path / "none"], store=str(tmp_path / "s.sqlite"))
    assert not list(tmp_path.iterdir())


def test_other_hosts_are_refused(tmp_path: Path):
    with pytest.raises(CityBrainError, match="this machine only"):
        serve([tmp_path], host="0.0.0.0", store=str(tmp_path / "s.sqlite"))


def test_serving_imports_no_torch():
    code = (
        "import sys, citybrain_serving.commands;"
        "print([m for m in ('torch', 'lightning', 'mlflow', 'torch_geometric') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_asked_to_stop_it_says_so_before_it_closes(tmp_path: Path, bundles):
    bundles["congestion"].write(tmp_path / "congestion")
    settings = {"leave_seconds": 60}
    with service([tmp_path / "congestion"], tmp_path / "s.sqlite", settings=settings, replay=False) as server:
        wait_for(server, "/readyz")
        server.process.send_signal(signal.SIGTERM)
        while (told := httpx.get(f"{server.url}/readyz")).status_code == 200:
            pass
        assert (told.status_code, told.json()["detail"]) == (503, "the service is about to stop")
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 503
        assert httpx.get(f"{server.url}/livez").status_code == 200
        assert httpx.get(f"{server.url}/v1/forecasts/congestion").status_code == 200
        server.process.send_signal(signal.SIGINT)  # once more: at once
        server.process.wait(30)
    assert "Traceback" not in server.log.read_text()


def test_settings_name_what_is_unknown():
    with pytest.raises(ConfigError, match=r"SERVE_PROT; did you mean CITYBRAIN_SERVE_PORT\?"):
        load_settings(environment={"CITYBRAIN_SERVE_PROT": "1"})
    with pytest.raises(ConfigError, match=r"CITYBRAIN_SERVE_WHATEVER$"):
        load_settings(environment={"CITYBRAIN_SERVE_WHATEVER": "1"})
    with pytest.raises(ConfigError, match=r"^settings: case_close_at must be below case_open_at"):
        load_settings(environment={"CITYBRAIN_SERVE_CASE_OPEN_AT": "0.2"})
    with pytest.raises(ConfigError, match="port"):
        load_settings(environment={"CITYBRAIN_SERVE_PORT": "many"})
    settings = load_settings({"port": 9, "host": None}, {"CITYBRAIN_SERVE_PORT": "8", "CITYBRAIN_SERVE_THREADS": "2"})
    assert (settings.port, settings.threads, settings.host) == (9, 2, Settings().host)


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^127\.0\.0\.1 port {port} cannot be bound: .*; --port takes another"):
            serve([tmp_path / "no-bundle"], port=port, store=str(tmp_path / "s.sqlite"))
    with pytest.raises(CityBrainError, match="no-bundle"):
        serve([tmp_path / "no-bundle"], port=port, store=str(tmp_path / "s.sqlite"))
    assert not (tmp_path / "s.sqlite").exists()
