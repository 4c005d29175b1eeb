from pathlib import Path

import pytest
import yaml

from training.config import TrainConfig, build, parse
from training.errors import ConfigError

SEED = Path(__file__).with_name("seed.yaml")


def recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


def parsed(*argv):
    return parse(argv, prog="train", description="")[0]


def test_an_unknown_key_suggests_the_nearest_one(tmp_path):
    with pytest.raises(ConfigError, match=r"recipe\.yaml: unknown key 'batchsize'; did you mean 'batch_size'\?"):
        parsed("--config", recipe(tmp_path, "batchsize: 64"))


def test_an_unknown_arch_suggests_the_nearest_one():
    with pytest.raises(ConfigError, match="unknown arch 'RepVGG_A0'; did you mean 'RepVGG-A0'"):
        build({"arch": "RepVGG_A0"}, source="x")


def test_an_unknown_flag_suggests_the_nearest_one_in_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed("--epohcs=3")
    assert capsys.readouterr().err == "error: unknown flag --epohcs; did you mean --epochs? See --help for all flags\n"


def test_resetting_the_classifier_needs_a_checkpoint():
    with pytest.raises(ConfigError, match="reset_classifier: True needs pretrained"):
        build({"reset_classifier": True}, source="x")


def test_fused_kernels_need_a_bundle_and_no_branches():
    with pytest.raises(ConfigError, match="fused: True needs pretrained, the bundle whose kernels it trains"):
        build({"fused": True}, source="x")
    with pytest.raises(ConfigError, match=r"fused: True has no branches.* set custom_l2: False"):
        build({"fused": True, "pretrained": "x", "custom_l2": True}, source="x")
    with pytest.raises(ConfigError, match="kernel_norms: True is for fused: True"):
        build({"kernel_norms": True, "pretrained": "x"}, source="x")


def test_a_wrong_type_names_the_key_and_the_value(tmp_path):
    with pytest.raises(ConfigError, match=r"epochs: .*integer.* \(got 'many'\)"):
        parsed("--config", recipe(tmp_path, "epochs: many"))


def test_numbers_and_none_are_parsed_as_intended(tmp_path):
    config = parsed(
        "--config", recipe(tmp_path, "weight_decay: 1e-4\npretrained: None\nwith_ema: 'True'\nmean: [0, 0.5, 1]")
    )
    assert config.weight_decay == 0.0001
    assert config.pretrained is None
    assert config.with_ema is True
    assert config.mean == (0.0, 0.5, 1.0)


def test_data_url_is_a_folder_or_an_address(tmp_path):
    assert parsed("--data_url", "obs://bucket/images").data_url == "obs://bucket/images"
    assert build({"data_url": tmp_path}, source="x").data_url == str(tmp_path)


def test_a_flag_wins_over_the_recipe(tmp_path):
    path = recipe(tmp_path, "epochs: 3\nbase_lr: 0.2")
    config = parsed("--config", path, "--epochs", "5", "--std", "[0.1, 0.2, 0.3]")
    assert (config.epochs, config.base_lr, config.std) == (5, 0.2, (0.1, 0.2, 0.3))


@pytest.mark.parametrize("text", ["- a\n- b", "a: [", "just words"])
def test_the_error_for_an_invalid_recipe_names_the_file(tmp_path, text):
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        parsed("--config", recipe(tmp_path, text))


def test_a_missing_recipe_names_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read"):
        parsed("--config", str(tmp_path / "nowhere.yaml"))


def test_a_warm_up_longer_than_the_run_is_rejected():
    with pytest.raises(ConfigError, match=r"warmup_length \(5\) exceeds epochs \(2\)"):
        build({"epochs": 2, "warmup_length": 5}, source="x")


def test_the_custom_l2_of_repvgg_is_rejected_for_qarepvgg():
    assert build({"arch": "RepVGG-A0", "custom_l2": True}, source="x").custom_l2
    with pytest.raises(ConfigError, match=r"custom_l2 is for RepVGG only: QARepVGG-A0 .* set custom_l2: False"):
        build({"arch": "QARepVGG-A0", "custom_l2": True}, source="x")


def test_an_unknown_flag_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("--no-such-flag", "1")
    assert stop.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err


def test_the_configuration_of_the_seed_project_loads_unchanged():
    config = parsed("--config", str(SEED))
    written = yaml.safe_load(SEED.read_text())
    odd = {"arch": "RepVGG-A0", "auto_augment": None, "beta": (0.9, 0.999)}
    assert {key: getattr(config, key) for key in written} == written | odd


def test_the_seed_projects_name_of_a0_is_reported_as_an_alias(capsys):
    assert parsed("--arch", "RepVGG-A0-A0tiny").arch == "RepVGG-A0"
    assert capsys.readouterr().out == "arch RepVGG-A0-A0tiny is another name for RepVGG-A0\n"


def printed(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        parsed(*argv, "--print-config")
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_print_config_shows_every_value_with_its_source(capsys, tmp_path):
    path = recipe(tmp_path, "epochs: 3\nweight_decay: 1e-4\nauto_augment: None")
    lines = printed(capsys, "--config", path, "--epochs", "5", "--with_ema", "True").splitlines()
    shown = {line.split(":")[0]: line.split(": ", 1)[1].split() for line in lines}
    assert list(shown) == list(TrainConfig.model_fields)
    assert shown["epochs"] == ["5", "#", "flag"]
    assert shown["weight_decay"] == ["0.0001", "#", "recipe"]
    assert shown["auto_augment"] == ["null", "#", "recipe"]
    assert shown["with_ema"] == ["true", "#", "flag"]
    assert shown["num_classes"] == ["null", "#", "default"]


def test_the_output_of_print_config_is_a_recipe_with_the_same_configuration(capsys, tmp_path):
    argv = ("--config", str(SEED), "--lr_milestones", "30,60", "--dataset", "Photos # 1: all", "--base_lr", "2e-7")
    again = recipe(tmp_path, printed(capsys, *argv))
    assert parsed("--config", again) == parsed(*argv)


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("optimizer", "adam", "adamw"),
        ("device_target", "ascend", "Ascend"),
        ("set", "cifar-10", "CIFAR10"),
        ("lr_scheduler", "cosine", "cosine_lr"),
        ("amp_level", "o2", "O2"),
        ("re_mode", "random", "rand"),
        ("mixup_mode", "element", "elem"),
        ("interpolation", "cubic", "bicubic"),
    ],
)
def test_an_unknown_value_of_a_choice_suggests_the_nearest_one(key, value, meant):
    with pytest.raises(ConfigError, match=f"{key}: unknown value '{value}'; did you mean '{meant}'"):
        build({key: value}, source="x")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("re_prob", 1.5),
        ("mix_up", -0.1),
        ("re_count", 0),
        ("beta", [0.9]),
        ("beta", [0.9, 1.0]),
        ("clip_global_norm_value", 0),
        ("ema_decay", 1),
        ("accumulate_steps", 0),
        ("loss_scale", 0.5),
        ("lr_milestones", [0]),
        ("with_ema", "perhaps"),
        ("holdout", -1),
        ("crop_scale", [0, 1]),
        ("crop_scale", [0.5, 1.1]),
        ("crop_scale", [0.5]),
    ],
)
def test_a_value_out_of_bounds_names_the_key(key, value):
    with pytest.raises(ConfigError, match=f"x: {key}"):
        build({key: value}, source="x")


def test_the_smaller_share_of_a_crop_comes_first():
    assert build({"crop_scale": "0.35,1"}, source="x").crop_scale == (0.35, 1.0)
    with pytest.raises(ConfigError, match=r"crop_scale \[1\.0, 0\.35\]: the smaller share comes first"):
        build({"crop_scale": [1.0, 0.35]}, source="x")


def test_the_title_of_a_data_set_is_not_its_layout():
    assert build({}, source="x").dataset_title == "ImageNet"
    assert build({"set": "CIFAR10"}, source="x").dataset_title == "CIFAR10"
    assert build({"set": "ImageFolder", "dataset": "CIFAR10"}, source="x").dataset_title == "CIFAR10"
    with pytest.raises(ConfigError, match="dataset is only a title; `set` gives the layout on disk"):
        build({"dataset": "CIFAR10"}, source="x")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "needs lr_milestones"),
        ({"lr_milestones": [60, 30]}, "must be strictly increasing"),
        ({"lr_milestones": [30, 30]}, "must be strictly increasing"),
    ],
)
def test_milestones_that_make_no_sense_are_rejected(values, words):
    with pytest.raises(ConfigError, match=words):
        build({"lr_scheduler": "multistep_lr"} | values, source="x")


@pytest.mark.parametrize("length", [0, 9])
def test_a_cool_down_that_does_not_fit_is_rejected(length):
    keys = {"lr_scheduler": "wsd_lr", "epochs": 10, "warmup_length": 2, "cooldown_length": length}
    with pytest.raises(ConfigError, match=rf"fits into epochs \(10\) .*; {length} does not"):
        build(keys, source="x")
    assert build(keys | {"cooldown_length": 8}, source="x").cooldown_length == 8


def test_more_plain_epochs_than_epochs_are_rejected():
    with pytest.raises(ConfigError, match=r"plain_epochs \(11\) exceeds epochs \(10\)"):
        build({"plain_epochs": 11, "epochs": 10}, source="x")


def test_help_names_the_choices_and_the_default(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    assert "const, rand, pixel" in (text := capsys.readouterr().out)
    assert "[default: cosine_lr]" in text


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *((word, "auto") for word in ("auto", "True", "true", "yes", "1")),
        *((word, "none") for word in ("none", "None", "False", "no", "null", "0")),
        ("'runs/RepVGG-A0/last.ckpt'", Path("runs/RepVGG-A0/last.ckpt")),
    ],
)
def test_resume_is_auto_or_none_or_a_checkpoint_and_yes_and_no_keep_their_meaning(tmp_path, written, meant):
    assert parsed("--config", recipe(tmp_path, f"resume: {written}")).resume == meant
    assert parsed("--resume", written.strip("'")).resume == meant


def test_resume_accepts_nothing_else():
    with pytest.raises(ConfigError, match=r"resume: .*must be auto, none or FILE\.ckpt \(got 'atuo'\)"):
        build({"resume": "atuo"}, source="x")


NUMBERS = [key for key, field in TrainConfig.model_fields.items() if "float" in str(field.annotation)]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", ".inf"])
@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_that_is_not_finite_is_refused_by_name(key, value):
    count = str(TrainConfig.model_fields[key].annotation).count("float")
    with pytest.raises(ConfigError, match=rf"test: {key}\b"):
        build({key: ",".join([value] * count) if count > 1 else value}, source="test")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("std", 0),
        ("std", [0, 0, 0]),
        ("std", [58.4, 57.1, 57.4]),
        ("std", [-0.2, 0.2, 0.2]),
        ("mean", [123.7, 116.3, 103.5]),
        ("mean", [-1, 0, 0]),
        ("batch_size", 0),
        ("base_lr", -0.1),
        ("seed", 2**32),
        ("patience", 0),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(key, value):
    with pytest.raises(ConfigError, match=rf"test: {key}\b"):
        build({key: value}, source="test")
