"""Every method of the field beside dense float64 code, and the table that says so."""

import re
from pathlib import Path

import pytest
from adapters.precision import CASES, Case, cells


HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "adapters.md"


@pytest.mark.slow(1)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)
def test_every_method_is_its_formula(case: Case):
    assert case.error(1.0) <= case.bound
    if case.large:
        assert case.error(1e4) <= case.bound


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)
def test_the_test_it_names_is_there(case: Case):
    file, name = case.test.split("::")
    assert re.search(rf"^def {name}\(", (HERE / file).read_text(), re.MULTILINE)


@pytest.mark.slow(3)
def test_the_table_of_the_docs_is_of_these_cases():
    (table,) = re.findall(
        r"<!-- begin precision -->\n\n(.*?)\n\n<!-- end", PAGE.read_text(), re.DOTALL
    )
    lines = table.splitlines()[2:]
    assert len(lines) == len(CASES)
    for line, case in zip(lines, CASES, strict=True):
        found = [cell.strip() for cell in line.strip("|").split(" | ")]
        now = cells(case)
        # what it says but for the digits, which are this machine's
        assert [*found[:3], found[5]] == [*now[:3], now[5]], (
            "run python docs/plots/make.py precision"
        )
        for said, measured in zip(found[3:5], now[3:5], strict=True):
            assert (said == "") == (measured == "")
            assert float(said or 0) <= case.bound
