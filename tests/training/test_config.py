from pathlib import Path

import pytest

from training.config import TrainConfig, build, parse
from training.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[2] / "training" / "recipes").glob("*.yaml"))


def recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


def parsed(*argv):
    return parse(argv, prog="train", description="")[0]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_valid_and_opens_with_its_story(path):
    assert isinstance(parsed("--config", str(path)), TrainConfig)
    assert path.read_text().startswith("# ")


def test_an_unknown_key_names_the_nearest_known_one(tmp_path):
    with pytest.raises(ConfigError, match=r"recipe\.yaml: unknown key 'batchsize'; did you mean 'batch_size'\?"):
        parsed("--config", recipe(tmp_path, "batchsize: 64"))


def test_an_unknown_arch_names_the_nearest_known_one():
    with pytest.raises(ConfigError, match="unknown arch 'RepVGG_A0'; did you mean 'RepVGG-A0'"):
        build({"arch": "RepVGG_A0"}, source="x")


def test_a_wrong_type_names_the_key_and_the_value(tmp_path):
    with pytest.raises(ConfigError, match=r"epochs: .*integer.* \(got 'many'\)"):
        parsed("--config", recipe(tmp_path, "epochs: many"))


def test_types_mean_what_people_mean(tmp_path):
    config = parsed(
        "--config", recipe(tmp_path, "weight_decay: 1e-4\npretrained: None\nresume: 'True'\nmean: [0, 0.5, 1]")
    )
    assert config.weight_decay == 0.0001
    assert config.pretrained is None
    assert config.resume is True
    assert config.mean == (0.0, 0.5, 1.0)


def test_a_flag_wins_over_the_recipe(tmp_path):
    path = recipe(tmp_path, "epochs: 3\nbase_lr: 0.2")
    config = parsed("--config", path, "--epochs", "5", "--std", "[0.1, 0.2, 0.3]")
    assert (config.epochs, config.base_lr, config.std) == (5, 0.2, (0.1, 0.2, 0.3))


@pytest.mark.parametrize("text", ["- a\n- b", "a: [", "just words"])
def test_what_is_no_recipe_names_the_file(tmp_path, text):
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        parsed("--config", recipe(tmp_path, text))


def test_a_missing_recipe_names_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read"):
        parsed("--config", str(tmp_path / "nowhere.yaml"))


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ConfigError, match=r"warmup_length \(5\) is longer than epochs \(2\)"):
        build({"epochs": 2, "warmup_length": 5}, source="x")


def test_an_unknown_flag_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("--no-such-flag", "1")
    assert stop.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err
