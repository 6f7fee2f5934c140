"""docker-compose.yml, as far as it can be checked without a container engine: by reading it.

What it names exists, and each service's own settings accept the environment that it is given.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
import toska_discovery.settings
import toska_events.settings
import toska_gateway.settings
import toska_router.settings
from ruamel.yaml import YAML
from toska_common.events.amqp.options import parse_url
from toska_common.mesh.settings import MeshSettings
from toska_common.settings import ServiceSettings
from toska_tests.parts import ROOT

SERVICES: Mapping[str, type[ServiceSettings]] = {
    "discovery": toska_discovery.settings.Settings,
    "events": toska_events.settings.Settings,
    "router": toska_router.settings.Settings,
    "gateway": toska_gateway.settings.Settings,
}
APPS = ("payments", "orders")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    yaml = YAML(typ="safe")
    return yaml.load(ROOT / "docker-compose.yml")  # pyright: ignore[reportUnknownMemberType] - ruamel leaves it untyped


def _environment(compose: dict[str, Any], service: str) -> dict[str, str]:
    """The variables of a container, with `${NAME:?…}` filled in."""
    given: dict[str, str] = compose["services"][service]["environment"]
    return {name: re.sub(r"\$\{(\w+):\?[^}]*\}", r"value-of-\1", value) for name, value in given.items()}


@pytest.mark.parametrize("service", SERVICES)
def test_settings_accept_what_a_container_is_given(
    compose: dict[str, Any], service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = _environment(compose, service)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = SERVICES[service].from_environment()
    assert settings.registry_url == "consul://consul:8500"
    assert settings.admin_token.get_secret_value() == "value-of-TOSKA_ADMIN_TOKEN"
    assert settings.allowed_hosts == (service,)
    assert _rabbitmq(compose) == parse_url(settings.events_url.get_secret_value()).nodes[0].url.partition("?")[0]
    _check_known(environment, SERVICES[service])


@pytest.mark.parametrize("app", APPS)
def test_apps_get_the_join_token_alone(compose: dict[str, Any], app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = _environment(compose, app)
    assert "TOSKA_ADMIN_TOKEN" not in environment
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = MeshSettings.from_environment()
    assert (settings.registry_url, settings.expose) == ("consul://consul:8500", True)
    assert settings.join_token.get_secret_value() == "value-of-TOSKA_JOIN_TOKEN"
    assert "TOSKA_RABBITMQ_PASSWORD" not in json.dumps(compose["services"][app])


def _rabbitmq(compose: dict[str, Any]) -> str:
    """The URL of RabbitMQ's container, as its own environment says it."""
    given = _environment(compose, "rabbitmq")
    return f"amqp://{given['RABBITMQ_DEFAULT_USER']}:{given['RABBITMQ_DEFAULT_PASS']}@rabbitmq:5672/"


def test_rabbitmq_is_there_for_the_mesh_alone_and_its_data_stay(compose: dict[str, Any]) -> None:
    rabbitmq = compose["services"]["rabbitmq"]
    assert "ports" not in rabbitmq
    assert rabbitmq["hostname"] == "rabbitmq"  # the node's name, by which it finds its data again
    assert rabbitmq["volumes"] == ["rabbitmq:/var/lib/rabbitmq"]
    assert "rabbitmq-diagnostics" in rabbitmq["healthcheck"]["test"]
    assert compose["services"]["events"]["depends_on"]["rabbitmq"] == {"condition": "service_healthy"}


def test_no_secret_stands_in_the_file(compose: dict[str, Any]) -> None:
    required = re.compile(r"\$\{TOSKA_\w+:\?[^}]+\}")
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"TOKEN|PASS|EVENTS_URL", variable):
                assert required.search(value), f"{name}: {variable}"
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    assert ".env" in (ROOT / ".dockerignore").read_text().split()


def test_everything_that_is_named_exists(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name
        assert set(service.get("depends_on", ())) <= set(services), name
        for mount in service.get("volumes", ()):
            assert mount.partition(":")[0] in compose["volumes"], name
    urls = re.findall(r"http://([a-z]+):\d+", json.dumps(compose["services"]))
    assert set(urls) <= set(services)


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_is_an_image_of_its_own_package(compose: dict[str, Any], service: str) -> None:
    assert compose["services"][service]["build"]["args"] == {"SERVICE": service}
    assert (ROOT / "services" / service / f"toska_{service}" / "__main__.py").is_file()


def test_ports_are_published_on_this_machine_only(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def _check_known(environment: Mapping[str, str], kind: type[ServiceSettings]) -> None:
    """pydantic-settings ignores variables that no field has, so a typo would go unnoticed."""
    prefix = kind.model_config.get("env_prefix", "")
    known = {str(field.validation_alias or prefix + name).upper() for name, field in kind.model_fields.items()}
    assert set(environment) <= known
