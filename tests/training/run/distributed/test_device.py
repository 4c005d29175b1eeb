import json
import subprocess
import sys
from pathlib import Path

import pytest

from training.errors import ConfigError, DeviceError
from training.run.distributed.device import Process, find_launcher, init_process

ROOT = Path(__file__).parents[4]
MSRUN = {
    "MS_ROLE": "MS_WORKER",
    "MS_WORKER_NUM": "2",
    "MS_SCHED_HOST": "127.0.0.1",
    "MS_SCHED_PORT": "8118",
    "RANK_SIZE": "2",
    "DEVICE_ID": "0",
}


def rank_table(tmp_path, devices=2, text=None):
    """The environment of rank 1 of 2."""
    listed = [{"device_id": str(index), "device_ip": "192.168.1.8", "rank_id": str(index)} for index in range(devices)]
    table = {"version": "1.0", "server_count": "1", "server_list": [{"server_id": "10.0.0.1", "device": listed}]}
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table) if text is None else text)
    return {"RANK_TABLE_FILE": str(path), "RANK_SIZE": "2", "RANK_ID": "1", "DEVICE_ID": "1"}


@pytest.mark.parametrize(
    "environment",
    [{}, {"DEVICE_ID": "3"}, {"RANK_SIZE": "1", "RANK_ID": "0"}, {"RANK_SIZE": "1", "RANK_ID": "0", "DEVICE_ID": "0"}],
)
def test_without_the_variables_of_a_launcher_a_run_is_one_process(environment):
    assert find_launcher(environment) is None
    process = init_process("CPU", 0, environment)
    assert (process.rank, process.size, process.is_main) == (0, 1, True)
    assert "oneDNN up to" in process.description


def test_the_launchers_are_recognised(tmp_path):
    assert find_launcher(rank_table(tmp_path)) == "rank table"
    assert find_launcher(MSRUN) == "msrun"
    assert find_launcher(MSRUN | rank_table(tmp_path)) == "msrun", "msrun passes a rank table on for other uses"


def test_modelarts_own_form_of_the_rank_table_is_counted(tmp_path):
    devices = [{"device_id": str(index), "device_ip": "192.168.1.8"} for index in range(2)]
    table = {"group_count": "1", "group_list": [{"instance_list": [{"devices": devices, "server_id": "10.0.0.1"}]}]}
    assert find_launcher(rank_table(tmp_path, text=json.dumps(table))) == "rank table"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"RANK_TABLE_FILE": "gone.json"}, "RANK_TABLE_FILE=gone.json cannot be read: No such file"),
        ({"RANK_TABLE_FILE": ""}, "RANK_SIZE, RANK_ID, DEVICE_ID set without RANK_TABLE_FILE: set .* or use msrun"),
        ({"RANK_SIZE": ""}, "RANK_TABLE_FILE, RANK_ID, DEVICE_ID set without RANK_SIZE"),
        ({"RANK_ID": ""}, "without RANK_ID"),
        ({"DEVICE_ID": ""}, "without DEVICE_ID"),
        ({"RANK_SIZE": "1", "RANK_ID": ""}, "without RANK_ID"),
        ({"RANK_ID": "2"}, "RANK_ID=2 must be less than RANK_SIZE=2"),
        ({"RANK_SIZE": "1"}, "RANK_ID=1 must be less than RANK_SIZE=1"),
        ({"RANK_SIZE": "two"}, "RANK_SIZE must be a non-negative integer, not 'two'"),
        ({"RANK_ID": "-1"}, "RANK_ID must be a non-negative integer, not '-1'"),
        ({"RANK_SIZE": "3"}, "lists 2 devices, but RANK_SIZE is 3"),
    ],
)
def test_variables_that_contradict_each_other_are_an_error_that_names_them(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        find_launcher(rank_table(tmp_path) | change)


def test_a_rank_without_the_other_variables_is_incomplete():
    with pytest.raises(ConfigError, match="RANK_ID set without RANK_TABLE_FILE, RANK_SIZE, DEVICE_ID"):
        find_launcher({"RANK_ID": "0"})


def test_a_rank_table_that_is_not_json_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"table\.json is not valid JSON"):
        find_launcher(rank_table(tmp_path, text="server_list"))


def test_msrun_without_its_scheduler_is_incomplete():
    with pytest.raises(ConfigError, match="MS_ROLE is set without MS_SCHED_HOST, MS_SCHED_PORT"):
        find_launcher({"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "2"})


def test_a_device_must_be_a_number():
    with pytest.raises(ConfigError, match="DEVICE_ID must be a non-negative integer, not 'first'"):
        init_process("CPU", 0, MSRUN | {"DEVICE_ID": "first"})


def test_a_rank_table_is_for_ascend(tmp_path):
    with pytest.raises(DeviceError, match="is for device_target Ascend, not CPU: start the run with msrun"):
        init_process("CPU", 0, rank_table(tmp_path))


def test_a_process_knows_its_share_of_the_images():
    assert Process(3, 8).image_shard == {"num_shards": 8, "shard_id": 3}
    assert not Process(3, 8).is_main


def test_the_error_for_missing_training_packages_says_how_to_install_them():
    program = "import sys; sys.modules['yaml'] = None; import training"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "in a clone, run python3 scripts/setup.py dev (0.9 GB)" in ended.stderr.splitlines()[-1]
