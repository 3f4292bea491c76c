"""The code blocks of the README and the guides run, top to bottom, each page in a Python of its own.

A block that is only a sketch is opened with "python sketch" and does not run.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ingot
from benchmarks.report import MARKS, readme_table

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_of(page: Path) -> str:
    """Return the page's Python blocks as one program whose line numbers are the page's own."""
    text = page.read_text()
    lines = [""] * (text.count("\n") + 1)
    for match in BLOCK.finditer(text):
        first = text[: match.start(1)].count("\n")
        block = match.group(1).splitlines()
        lines[first : first + len(block)] = block
    return "\n".join(lines)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_code_blocks_run(page: Path, tmp_path: Path) -> None:
    code = code_of(page)
    if not code.strip():
        pytest.skip("no Python on this page")
    script = tmp_path / page.name
    script.write_text(code)
    result = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},  # this checkout, wherever it is installed
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{page.name}:\n{result.stderr[-2000:]}"


def test_readme_commands_are_make_targets() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named
    assert named <= targets


def test_readme_installs_what_the_package_offers() -> None:
    commands = re.findall(r"pip install ([^#`\n]+)", (ROOT / "README.md").read_text())
    offered = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    extras = {extra for command in commands for extra in re.findall(r"\[(\w+)\]", command)}
    assert extras == set(offered)
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    versions = [word for command in commands for word in command.split() if "==" in word]
    assert versions and set(versions) <= set(pinned)


def test_changelog_names_what_there_is() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    named = set(re.findall(r"`ingot\.(\w+)`", text))
    assert named
    assert named <= set(ingot.__all__)
    options = set(re.findall(r"`(enable_\w+)`", text))
    assert options <= {field.name for field in dataclasses.fields(ingot.SessionOptions)}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_local_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_readme_has_the_recorded_measurements() -> None:
    """Its table is made from the newest measurement, not by hand."""
    wanted = readme_table(ROOT / "docs" / "benchmarks-avx2.json")
    found = (ROOT / "README.md").read_text().split(MARKS[0])[1].split(MARKS[1])[0]
    assert found == wanted, "run update_readme() of benchmarks/report.py"


def test_the_operator_that_the_architecture_shows_is_the_real_one() -> None:
    diff = re.search(r"^```diff\n(.*?)^```$", (ROOT / "docs/architecture.md").read_text(), re.M | re.S)
    assert diff is not None
    head, *added = diff.group(1).splitlines()[1:]
    source = (ROOT / head.removeprefix("+++ b/")).read_text()
    assert "\n".join(line.removeprefix("+") for line in added) in source
