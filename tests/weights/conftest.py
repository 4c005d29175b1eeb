import pytest

from tests.torch_files import TorchFile


@pytest.fixture
def torch_file():
    return TorchFile()
