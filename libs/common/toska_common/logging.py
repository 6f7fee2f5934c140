"""Logs: one JSON object a line for machines, coloured text on a terminal, everything through one pipe.

`configure_logging` is called once by whoever owns the process. Our code logs with `structlog.get_logger(__name__)`;
the standard library's loggers, uvicorn's included, come out in the same form. Every line has `timestamp`, `level`,
`service` and `event`, and `trace_id` and `span_id` where the work belongs to a trace. Secrets are masked.

The service is a context variable (`structlog.contextvars.bind_contextvars(service=...)`), so that services that share
a process keep their lines apart, also in files: `home/logs/<service>.jsonl`.
"""

import logging
import os
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from toska_common.log_files import MAX_BYTES, ServiceFiles
from toska_common.redaction import redact_fields, redact_text
from toska_common.settings import LogFormat
from toska_common.trace import current_ids

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_TAKEN_OVER = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "fastapi", "gunicorn.error")
# Libraries that report each call at info: what our own records and metrics say better.
_QUIET = ("httpx", "httpcore", "aiohttp.access", "asyncio", "watchfiles.main")
_FIRST_FIELDS = ("timestamp", "level", "service", "event", "trace_id", "span_id")


def configure_logging(
    *,
    level: str = "info",
    format: LogFormat = "auto",  # noqa: A002 - the setting's name
    service: str = "mesh",
    home: Path | None = None,
    stream: TextIO | None = None,
    stream_level: str | None = None,
    max_file_bytes: int = MAX_BYTES,
) -> None:
    """Send all logs of this process to `stream` and, with a `home`, to its `logs` folder. May be called again.

    Args:
        level: The least level that is written.
        format: `auto` is `text` on a terminal and `json` elsewhere.
        service: Named on lines of work that has not bound a `service` of its own.
        home: Where `logs/<service>.jsonl` lie; always JSON, whatever `format` says.
        stream: Standard error by default: standard output belongs to what a command prints.
        stream_level: The least level that goes to `stream`, where files are to get more than it does.
        max_file_bytes: Size at which a file is rotated.
    """
    target = stream or sys.stderr
    text = format == "text" or (format == "auto" and target.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _Service(service),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_ids,
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        # Not cached, so that a second call (a test's, a reloader's) also reaches loggers that were used before it.
        cache_logger_on_first_use=False,
    )
    foreign: list[Processor] = [*shared, _name_logger, _structure_server_line]
    handlers: list[logging.Handler] = [_stream_handler(target, foreign, text=text)]
    handlers[0].setLevel(LEVELS[stream_level or level])
    if home is not None:
        handlers.append(_FileHandler(ServiceFiles(home / "logs", max_bytes=max_file_bytes), foreign, service))
    _install(handlers, LEVELS[level])


def _stream_handler(target: TextIO, foreign: Sequence[Processor], *, text: bool) -> logging.Handler:
    handler = logging.StreamHandler(target)
    if text:
        colors = target.isatty() and not os.environ.get("NO_COLOR")
        # Plain tracebacks: the rich ones print local variables, and those may be secrets.
        renderer = structlog.dev.ConsoleRenderer(
            colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
        handler.setFormatter(_Formatter(foreign, [_shorten_time, renderer]))
    else:
        handler.setFormatter(_json_formatter(foreign))
    return handler


def _json_formatter(foreign: Sequence[Processor]) -> "_Formatter":
    return _Formatter(
        foreign,
        [structlog.processors.format_exc_info, _order_fields, structlog.processors.JSONRenderer(default=str)],
    )


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Renders records of structlog and of the standard library alike; masks secrets last, in the finished line."""

    def __init__(self, foreign: Sequence[Processor], renderers: Sequence[Processor]) -> None:
        super().__init__(
            foreign_pre_chain=foreign,
            pass_foreign_args=True,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _redact, *renderers],
        )

    def format(self, record: logging.LogRecord) -> str:
        return redact_text(super().format(record))


class _FileHandler(logging.Handler):
    """Writes each line to the file of its service."""

    def __init__(self, files: ServiceFiles, foreign: Sequence[Processor], service: str) -> None:
        super().__init__()
        self._files = files
        self._service = service
        self._broken = False
        self.setFormatter(_json_formatter(foreign))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._files.write(_service_of(record, self._service), self.format(record))
            self._broken = False
        except OSError as error:
            # A full disk must not stop a service, nor fill its terminal: said once until it works again.
            if not self._broken:
                self._broken = True
                sys.stderr.write(f"log files cannot be written: {error}\n")

    def close(self) -> None:
        self._files.close()
        super().close()


class _Service:
    """Adds the process's own service name where no other is bound."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault("service", self._name)
        return event


def _service_of(record: logging.LogRecord, default: str) -> str:
    fields: Any = record.msg
    if isinstance(fields, dict):  # structlog's own: its event, with the service already in it
        return str(cast("dict[str, Any]", fields).get("service", default))
    return str(structlog.contextvars.get_contextvars().get("service", default))


def _add_trace_ids(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    ids = current_ids()
    if ids is not None:
        event.setdefault("trace_id", ids[0])
        event.setdefault("span_id", ids[1])
    return event


def _name_logger(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        event["logger"] = record.name
    return event


def _structure_server_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Turn uvicorn's access line into fields, and give its crash line our name; the query string may be private."""
    arguments: Any = event.pop("positional_args", ())
    if event.get("logger") == "uvicorn.access" and len(arguments) == 5:
        client, method, path, _version, status = arguments
        event["event"] = "request_served"
        event.update(method=method, path=str(path).partition("?")[0], status=status, client=client)
    elif str(event["event"]).startswith("Exception in ASGI application"):
        event["event"] = "request_crashed"
    return event


def _redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return redact_fields(event)


def _order_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    ordered: MutableMapping[str, Any] = {key: event.pop(key) for key in _FIRST_FIELDS if key in event}
    ordered.update(event)
    return ordered


def _shorten_time(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    # On a terminal the day is today; ids of a trace would push what matters off the line.
    event["timestamp"] = str(event.get("timestamp", ""))[11:23]
    event["logger"] = event.pop("service", "")  # the renderer shows it in a column of its own
    if "trace_id" in event:
        event["trace_id"] = event["trace_id"][:8]
    event.pop("span_id", None)
    return event


def _install(handlers: Sequence[logging.Handler], level: int) -> None:
    root = logging.getLogger()
    for handler in [*root.handlers]:
        if isinstance(handler.formatter, _Formatter):
            root.removeHandler(handler)
            handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    for name in _TAKEN_OVER:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
