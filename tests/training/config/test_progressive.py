import pytest

from training.config import build, effective
from training.config.progressive import parse, size_at, spans
from training.errors import ConfigError


def test_a_size_lasts_until_the_next_one():
    assert parse(" 0:48, 8 :64") == ((0, 48), (8, 64))
    assert [size_at("0:48,8:64", epoch) for epoch in (0, 7, 8, 11)] == [48, 48, 64, 64]
    assert spans("0:48,8:64", 12) == {0: 8, 8: 4}
    assert spans("0:32", 5) == {0: 5}


@pytest.mark.parametrize(
    "text",
    ["48", "0:48;8:64", "1:48", "0:48,8:64,8:96", "0:48,9:64,8:96", "0:0", "0:-1", "0:48,", "0:4.5", "\u0660:48"],
)
def test_an_invalid_list_of_sizes_is_rejected(text):
    with pytest.raises(
        ConfigError, match="must be pairs EPOCH:PIXELS that begin with epoch 0 and rise, as in 0:48,8:64"
    ):
        build({"image_sizes": text}, source="x")


def test_a_size_that_the_run_never_reaches_is_rejected():
    with pytest.raises(ConfigError, match="epoch 8 is never reached, epochs is 8 and counts from 0"):
        build({"image_sizes": "0:48,8:64", "epochs": 8}, source="x")


def test_only_the_training_images_of_an_epoch_change_their_size():
    config = build({"image_sizes": "0:48,8:64", "image_size": 80, "epochs": 12, "plain_epochs": 2}, source="x")
    sizes = [config.at_epoch(epoch).image_size for epoch in range(12)]
    assert sizes == [48] * 8 + [64] * 4
    assert config.image_size == 80
    unchanged = config.at_epoch(0).model_dump() | {"image_size": 80}
    assert unchanged == config.model_dump()
    plain = build({"epochs": 3}, source="x")
    assert plain.at_epoch(1) is plain
    assert (config.size_spans, plain.size_spans) == ({0: 8, 8: 4}, {0: 3})


def test_image_sizes_survive_print_config():
    config = build({"image_sizes": "0:48,8:64", "epochs": 12}, source="x")
    import yaml

    assert build(yaml.safe_load(effective(config, recipe={}, flags={})), source="x") == config
