"""Host names as an operator writes them in the environment."""

import pytest
from toska_common.errors import ConfigurationError
from toska_common.settings import ServiceSettings


def test_host_names_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOSKA_ALLOWED_HOSTS", "mesh.example, 10.0.0.7,[fd00::1]")
    assert ServiceSettings.from_environment().allowed_hosts == ("mesh.example", "10.0.0.7", "[fd00::1]")


@pytest.mark.parametrize("value", ["mesh.example:80", "http://mesh.example", "a b", '["a"]'])
def test_what_is_not_a_host_name_is_refused_with_its_variable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TOSKA_ALLOWED_HOSTS", value)
    with pytest.raises(ConfigurationError, match=r"TOSKA_ALLOWED_HOSTS.*is not a host name"):
        ServiceSettings.from_environment()
