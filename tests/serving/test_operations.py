"""The runbook is run, and what is deployed fits what is served."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from citybrain_serving.app import create_app
from citybrain_serving.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
DEPLOY = ROOT / "serving" / "deploy"
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", RUNBOOK, re.MULTILINE | re.DOTALL)
NEEDED = ("bash", "curl", "sha256sum", "base64")


@pytest.mark.skipif(any(shutil.which(name) is None for name in NEEDED), reason=f"needs {', '.join(NEEDED)}")
def test_every_command_of_the_runbook_runs(bundles, tmp_path):
    for name, bundle in bundles.items():
        bundle.write(tmp_path / "bundles" / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "\n".join(BLOCKS)
    script = re.sub(r"\b8000\b", str(port), script)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=480
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unbroken" in done.stdout
    assert '"name":"small"' in done.stdout
    assert (tmp_path / "backups" / "monday.sqlite").is_file()
    assert not list((tmp_path / "backups").glob(".*"))


def test_every_alarm_is_in_the_runbook_and_rests_on_metrics_that_exist(service):
    create_app(service)  # registers what the routes count
    known = {sample.name for family in service.telemetry.registry.collect() for sample in family.samples}
    known |= {f"{family.name}_total" for family in service.telemetry.registry.collect() if family.type == "counter"}
    for family in service.telemetry.registry.collect():
        known |= {family.name} | {f"{family.name}_{part}" for part in ("bucket", "count", "sum")}
    known |= {"citybrain_mqtt_connected"}  # only where a broker is set
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    for rule in rules:
        assert f"| {rule['alert']} |" in RUNBOOK
        assert set(re.findall(r"citybrain_\w+", rule["expr"])) <= known
    assert RUNBOOK.count("| CityBrain") == len(rules)


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "citybrain.service"])
def test_what_is_deployed_names_settings_that_exist(name):
    text = (DEPLOY / name).read_text(encoding="utf-8") + RUNBOOK
    named = {match.lower() for match in re.findall(rf"{PREFIX}(\w+)", text)}
    assert named
    assert named <= set(Settings.model_fields)


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ((DEPLOY / "Dockerfile").read_text(encoding="utf-8"), {"serving", "oidc", "postgres", "mqtt", "otel"}),
        (RUNBOOK, {"serving", "oidc"}),
    ],
    ids=["Dockerfile", "runbook"],
)
def test_what_is_installed_can_do_what_is_told(text, needed):
    known = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    installs = [set(extras.split(",")) for extras in re.findall(r"'\.\[([\w,]+)\]'", text)]
    assert installs
    assert all(needed <= extras <= known for extras in installs)


def test_the_containers_are_confined():
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]["citybrain"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert re.search(r"^USER citybrain$", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd on this machine")
def test_the_unit_is_one_that_systemd_understands(tmp_path):
    unit = (DEPLOY / "citybrain.service").read_text(encoding="utf-8")
    path = tmp_path / "citybrain.service"
    path.write_text(unit.replace("/opt/citybrain/bin/citybrain", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    told = [line for line in done.stderr.splitlines() if "citybrain.service" in line]
    assert not told, told
