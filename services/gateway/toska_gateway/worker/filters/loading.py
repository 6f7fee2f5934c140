"""Finding a filter's class by its name, and making its instance with checked settings.

This imports an operator's code. It happens in workers, and in the short-lived process that tries routing before any
worker has it (`toska_gateway.filter_trial`); never in the gateway's parent.
"""

import dataclasses
import importlib
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_type_hints

from toska_common.filters import Filter


class UnusableFilter(ValueError):
    """The filter cannot be had; says why, in words for whoever wrote the route."""


def add_folder(folder: str) -> None:
    """Have filters found in `folder`; what is installed goes before it, so that no file there hides a library."""
    if folder and folder not in sys.path:
        sys.path.append(folder)


def load_filter(use: str, settings: Mapping[str, Any]) -> Filter:
    """An instance of the class that `use` names, as `package.module:Class`.

    Raises:
        UnusableFilter: There is none, it cannot be imported, or the settings are not such as it takes.
    """
    found = _find_class(use)
    try:
        return found(_read_settings(found, use, settings))
    except UnusableFilter:
        raise
    except Exception as error:
        raise UnusableFilter(f"{use} cannot be made: {_described(error)}") from error


def _find_class(use: str) -> type[Filter]:
    module_name, _, class_name = use.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise UnusableFilter(f"{use} cannot be imported: {_described(error)}") from error
    found: object = getattr(module, class_name, None)
    if found is None:
        raise UnusableFilter(f"{module_name} has no {class_name}")
    if not (isinstance(found, type) and issubclass(found, Filter)):
        raise UnusableFilter(f"{use} is no toska_common.filters.Filter")
    return found


def _read_settings(found: type[Filter], use: str, settings: Mapping[str, Any]) -> Any:
    model = _model_of(found, use)
    if model is None:
        if settings:
            raise UnusableFilter(f"{use} takes no settings (it has no annotation `settings: …` that says which)")
        return None
    try:
        if hasattr(model, "model_validate"):
            return model.model_validate(dict(settings))
        return model(**settings)
    except Exception as error:
        raise UnusableFilter(f"{use}: settings: {_problems(error)}") from error


def _model_of(found: type[Filter], use: str) -> Any:
    try:
        model: object = get_type_hints(found).get("settings", Any)
    except Exception as error:
        raise UnusableFilter(f"{use}: the annotation of its settings cannot be read: {_described(error)}") from error
    if model is Any or model is type(None):
        return None
    if not (hasattr(model, "model_validate") or dataclasses.is_dataclass(model)):
        raise UnusableFilter(f"{use}: the annotation of its settings is neither a pydantic model nor a dataclass")
    return model


def _problems(error: Exception) -> str:
    """What is wrong with settings; a validation error is told field by field, without what was given."""
    listed = getattr(error, "errors", None)
    if not callable(listed):
        return str(error) or type(error).__name__
    try:
        found = cast("list[dict[str, Any]]", listed(include_url=False, include_input=False, include_context=False))
        return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'settings'}: {one['msg']}" for one in found)
    except (TypeError, KeyError):
        return type(error).__name__


def _described(error: BaseException) -> str:
    """What went wrong, and where in the operator's code."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{text}{place_of(error)}"


def place_of(error: BaseException) -> str:
    """` (file.py:12)`: the innermost line that is not the import system's or ours."""
    own = str(Path(__file__).parent)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename[:1] != "<"]
    for frame in reversed(frames):
        if not frame.filename.startswith(own) and "importlib" not in frame.filename:
            return f" ({Path(frame.filename).name}:{frame.lineno})"
    return ""
