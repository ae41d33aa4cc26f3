"""How a suite is started, and what its report says: tests as pytest names them, passed, failed or left out."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.compat.pytest_side import Side, read_report

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


def test_a_suite_hears_of_ctrl_c_wherever_it_is_started(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\ngrep SigIgn /proc/self/status\n")
    python.chmod(0o755)
    side = Side(python, tmp_path, tmp_path / "side", (), {})
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        side.start().wait()
    finally:
        signal.signal(signal.SIGINT, before)
    ignored = int((tmp_path / "side" / "log.txt").read_text().split()[1], 16)
    assert not ignored & 1 << (signal.SIGINT - 1)
