import pytest

from training.deploy.versions import check_new
from training.errors import ConfigError


def test_an_existing_folder_or_an_invalid_name_is_rejected(tmp_path):
    with pytest.raises(ConfigError, match="exists: a published bundle is never changed"):
        check_new(tmp_path)
    with pytest.raises(ConfigError, match="must end in NAME/VERSION"):
        check_new(tmp_path / "a b" / "1")
    assert check_new(tmp_path / "a" / "1") == ("a", "1")
