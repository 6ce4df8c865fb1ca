"""docs/doctor.md shows all set-ups that the tests make, with the verdict that they expect."""

from __future__ import annotations

from tests.support.doctor_cases import APP, REDIS, WEB, row
from tests.support.processes import ROOT


def test_the_page_has_a_row_for_each_set_up_and_no_other_row() -> None:
    lines = (ROOT / "docs" / "doctor.md").read_text().splitlines()
    cases = [*REDIS.values(), *WEB.values(), *APP.values()]
    assert [line for line in lines if "| `broken " in line or "| `warning " in line] == list(map(row, cases))
    assert len(cases) >= 45
