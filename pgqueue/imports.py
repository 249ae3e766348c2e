"""Imports the modules that people name, and says where and why it cannot."""

import os
import traceback
from importlib import import_module
from types import ModuleType

from pgqueue.error_text import headline, stack_of
from pgqueue.errors import ModuleError, TaskError
from pgqueue.masking import mask


def imported(name: str, what: str = "task module") -> ModuleType:
    """The module of that name. Raises ModuleError, with what went wrong and where."""
    try:
        return import_module(name)
    except TaskError as error:
        # It says itself where it stands.
        raise ModuleError(f"{what} {name} cannot be imported: {error}") from error
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            missing = "" if error.name == name else f" (there is no {error.name})"
            where = (
                f"looked in the working directory {os.getcwd()} and wherever Python looks: "
                "PYTHONPATH adds to that"
            )
            raise ModuleError(
                f"{what} {name} cannot be imported: it was not found{missing}; {where}"
            ) from error
        raise _failed(what, name, error) from error
    except SystemExit as error:
        raise _failed(what, name, error, "it ends the program while it is imported: ") from error
    except Exception as error:
        raise _failed(what, name, error) from error


def _failed(what: str, name: str, error: BaseException, why: str = "") -> ModuleError:
    return ModuleError(
        f"{what} {name} cannot be imported: {why}{mask(headline(error))}", _trace(error)
    )


def _trace(error: BaseException) -> str:
    """From the module on; how it came to be imported is of no interest."""
    trace = error.__traceback__
    while trace is not None and (
        "importlib" in (file := trace.tb_frame.f_code.co_filename) or file == __file__
    ):
        trace = trace.tb_next
    try:
        return mask("".join(traceback.format_exception(type(error), error, trace)))
    except Exception:  # noqa: BLE001 - a foreign class that cannot be printed
        return mask(stack_of(error))
