"""What an operator can set for a gateway, and what the errors say."""

from pathlib import Path

import pytest
from toska_common.errors import ConfigurationError
from toska_gateway.settings import Settings


@pytest.fixture(autouse=True)
def _clean_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "ADMIN_PORT", "WORKERS", "ROUTER_URL", "ROUTES", "SERVE_MANAGEMENT"):
        monkeypatch.delenv(f"TOSKA_GATEWAY_{name}", raising=False)
    monkeypatch.delenv("TOSKA_HOST", raising=False)


def test_the_defaults_are_the_documented_ports_on_loopback() -> None:
    settings = Settings.from_environment()
    assert (settings.host, settings.port, settings.admin_port) == ("127.0.0.1", 8080, 8100)
    assert (settings.discovery_url, settings.router_url) == ("http://127.0.0.1:8101", "http://127.0.0.1:8102")
    assert settings.registry_api_url == "http://127.0.0.1:8500"
    assert 1 <= settings.workers <= 4


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("TOSKA_GATEWAY_PORT", "99999", "less than or equal to 65535"),
        ("TOSKA_GATEWAY_ADMIN_PORT", "8080", "already the data listener's port"),
        ("TOSKA_GATEWAY_WORKERS", "0", "greater than or equal to 1"),
        ("TOSKA_GATEWAY_ROUTER_URL", "https://router:8102", "not of the form http://host:port"),
        ("TOSKA_GATEWAY_ROUTER_URL", "http://router", "not of the form http://host:port"),
        ("TOSKA_GATEWAY_ROUTER_URL", "http://router:8102/api", "more than scheme, host and port"),
        ("TOSKA_GATEWAY_ROUTER_URL", "http://router:99999", "no valid port"),
        ("TOSKA_GATEWAY_ROUTES", "nowhere.yaml", "is not a file"),
        ("TOSKA_GATEWAY_ENGINE", "nginx", "'python'"),
        ("TOSKA_FILTERS_PATH", "no-such-folder", "no-such-folder is not a folder"),
        ("TOSKA_CACHE_URL", "memcached://cache", "write memory://, redis://host:port/0"),
        ("TOSKA_CACHE_URL", "redis:///0", "names no host"),
        ("TOSKA_CACHE_URL", "redis://cache:port", "no number from 0 to 65535"),
        ("TOSKA_CACHE_URL", "redis://cache:6379/main", "the number of a database"),
    ],
)
def test_a_wrong_setting_is_named_with_its_variable_and_the_reason(
    variable: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment()
    assert variable in str(caught.value)
    assert reason in str(caught.value)


def test_filters_are_found_in_the_working_directory_or_where_a_setting_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.from_environment().filters_folder == tmp_path
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("TOSKA_FILTERS_PATH", "own")
    assert Settings.from_environment().filters_folder == tmp_path / "own"


def test_the_password_of_a_cache_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOSKA_CACHE_URL", "redis://:hunter2@cache:6379/0")
    assert "hunter2" not in repr(Settings.from_environment())
    monkeypatch.setenv("TOSKA_CACHE_URL", "redis://:hunter2@cache:6379/main")
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "asked_for", "served"),
    [
        ("127.0.0.1", "", True),
        ("::1", "", True),
        ("0.0.0.0", "", False),
        ("0.0.0.0", "true", True),
        ("10.0.0.1", "", False),
    ],
)
def test_the_mesh_s_apis_are_on_the_data_listener_only_on_loopback_or_if_asked_for(
    host: str, asked_for: str, served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOSKA_HOST", host)
    monkeypatch.setenv("TOSKA_GATEWAY_SERVE_MANAGEMENT", asked_for)
    assert Settings.from_environment().management_on_data_listener is served


def test_with_a_routing_file_nothing_on_the_data_listener_is_reserved(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("routes: []")
    settings = Settings.from_environment(routes=file, serve_management=True)
    assert not settings.management_on_data_listener
