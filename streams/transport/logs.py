"""How a worker logs: its own messages at the level asked for, those of Faust and aiokafka from WARNING on."""

import json
import logging
from typing import Any

NOISY = ("aiokafka", "faust", "mode", "kafka", "asyncio")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (epoch ms), level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time_ms": int(record.created * 1_000),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def logging_config(level: str, form: str) -> dict[str, Any]:
    """Return the configuration for logging.config.dictConfig; form: console or json."""
    quieter = level if level == "DEBUG" else "WARNING"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "console": {"format": "%(asctime)s %(levelname)-8s %(process)d %(name)s: %(message)s"},
            "json": {"()": f"{__name__}.{JsonFormatter.__name__}"},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": form, "stream": "ext://sys.stderr"}},
        "loggers": {name: {"level": quieter} for name in NOISY} | {"streams": {"level": level}},
        "root": {"handlers": ["stderr"], "level": quieter},
    }
