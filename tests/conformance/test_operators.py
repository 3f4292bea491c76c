"""How many operators have generated kernels, and that docs/operators.md claims no more than is so."""

from __future__ import annotations

import onnx

from tests.conformance.operators import GROUPS, PAGE, native_count, survey, table
from tests.conformance.suite import LEFT

#: The count may only rise; raise this when it does.
NATIVE_AT_LEAST = 164
AGAIN = "run `python -m tests.conformance.report --write`"


def test_operators_with_kernels() -> None:
    host = [
        row.name for (domain, _), row in survey().items() if domain == "" and row.own and not row.is_native
    ]
    assert native_count() >= NATIVE_AT_LEAST, f"the host has more operators than before: {host}"


def test_the_page_names_every_operator_and_every_case_that_is_left() -> None:
    page = PAGE.read_text()
    for schema in onnx.defs.get_all_schemas():
        assert f"| {schema.name} |" in page, AGAIN
    for name, reason in LEFT.items():
        assert f"- `{name}`: {reason}." in page, AGAIN


def test_the_page_claims_no_more_than_is_so() -> None:
    """Kernels may come before the page is made anew; they must not go unnoticed."""
    made = _claims(table())
    for name, claimed in _claims(PAGE.read_text().splitlines()).items():
        assert claimed <= made[name], f"{name}: {claimed - made[name]} are not native; {AGAIN}"


def _claims(lines: list[str]) -> dict[tuple[str, str], frozenset[str]]:
    """Native dtypes by domain and name: some names are in two domains."""
    found: dict[tuple[str, str], frozenset[str]] = {}
    domain = ""
    for line in lines:
        if line.startswith("### "):
            domain = line.removeprefix("### ")
        elif _is_row(line):
            name, dtypes = _natives(line)
            found[domain, name] = dtypes
    return found


def _is_row(line: str) -> bool:
    return line.startswith("| ") and line.count("|") == 6 and not line.startswith(("| operator ", "| --- "))


def _natives(line: str) -> tuple[str, frozenset[str]]:
    cells = [cell.strip() for cell in line.split("|")]
    words = [word for word in cells[3].split(", ") if word]
    return cells[1], frozenset(dtype for word in words for dtype in GROUPS.get(word, [word]))
