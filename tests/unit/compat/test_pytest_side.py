"""What is read from pytest's report of a suite: names as pytest has them, and what passed, failed or was left out."""

from __future__ import annotations

from pathlib import Path

from tests.compat.pytest_side import read_report

REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_it" name="test_plain[1]" file="tests/test_it.py" />
<testcase classname="tests.test_it.TestOne" name="test_same" file="tests/test_it.py"><properties /></testcase>
<testcase classname="tests.test_it.TestTwo" name="test_same" file="tests/test_it.py">
  <failure message="no">why not</failure></testcase>
<testcase classname="tests.test_it" name="test_left_out" file="tests/test_it.py"><skipped message="never" /></testcase>
<testcase classname="tests.test_it" name="test_torn_down" file="tests/test_it.py" />
<testcase classname="tests.test_it" name="test_torn_down" file="tests/test_it.py"><error>at its end</error></testcase>
<testcase classname="tests.test_it" name="test_silent" file="tests/test_it.py"><failure message="no" /></testcase>
</testsuite></testsuites>"""


def test_what_a_report_says(tmp_path: Path) -> None:
    file = tmp_path / "report.xml"
    file.write_text(REPORT)
    assert read_report(file) == {
        "tests/test_it.py::test_plain[1]": [],
        "tests/test_it.py::TestOne::test_same": [],
        "tests/test_it.py::TestTwo::test_same": ["why not"],
        "tests/test_it.py::test_torn_down": ["at its end"],
        "tests/test_it.py::test_silent": ["failure"],
    }
