"""The benchmark runs and says what it promises; its figures are for people, not for tests."""

import pytest

from benchmarks.worker import main


def test_it_compares_wall_and_cpu_time_here_and_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--engines", "fake", "--batches", "1", "2", "--rounds", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split(", ")[1].strip() for line in lines] == ["wall", "CPU"] * 2
    assert all("in a separate process" in line and "ratio" in line for line in lines)
