"""What the documents tell to type can be typed: commands parse, and the files they show are read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.text import Text

from citybrain_datasets.main import build_app, main
from citybrain_datasets.scenarios.reading import read_scenarios
from citybrain_training.config import read_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FILE = re.compile(r"^cat > (\S+) <<'EOF'\n(.*?)^EOF\n", re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Page and words of every ``citybrain`` command in a block for the shell."""
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in FILE.sub("", block).replace("\\\n", " ").splitlines():
                words = shlex.shlex(line, posix=True, punctuation_chars=True)
                words.whitespace_split = True
                found = list(words)
                for start, word in enumerate(found):
                    if word == "citybrain":
                        rest = found[start + 1 :]
                        end = next((i for i, w in enumerate(rest) if set(w) <= set(";|&<>()")), len(rest))
                        yield page.name, rest[:end]


def name_of(given: object) -> str:
    return given if isinstance(given, str) else given[0]  # type: ignore[index]  # the words of a command


@pytest.mark.parametrize(("page", "words"), list(commands()), ids=name_of)
def test_a_documented_command_parses(page: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    names = 2 if hasattr(typer.main.get_command(build_app(words)).commands[words[0]], "commands") else 1
    with pytest.raises(SystemExit) as left:
        main([*words[:names], "--help", *words[names:]])  # help is given once all options are known
    assert not left.value.code, capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_documented_file_is_read(page: Path, tmp_path: Path) -> None:
    for name, content in FILE.findall(page.read_text(encoding="utf-8")):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        if "scenarios:" in content:
            assert len(read_scenarios(path)) == 6
        else:
            assert read_config(path).fit.epochs < 10


def test_help_shows_all_that_is_written():
    """Rich takes words in brackets for markup and leaves them out: defaults that a help text tells were never seen."""
    names = typer.main.get_command(build_app([])).commands
    lost = [
        (name, parameter.name)
        for name in names
        for command in _every(typer.main.get_command(build_app([name])).commands[name])
        for parameter in command.params
        if (text := getattr(parameter, "help", None)) and Text.from_markup(text).plain != text
    ]
    assert len(names) > 20
    assert not lost


def _every(command: Any) -> Iterator[Any]:
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from _every(below)
