"""Why a deployment's run failed, where its operator looks: Prefect's command line shows the name of a state alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from prefect import get_run_logger, runtime
from prefect.states import Failed

from flows.errors import remedy_of
from storage.errors import first_line

MOST = 300  # characters of a state's name
Given = ParamSpec("Given")
Found = TypeVar("Found")


def cause_in_state(body: Callable[Given, Found]) -> Callable[Given, Found]:
    """A flow's body which, in a deployment's run, ends in a failed state that is named after the cause. In a process of
    one's own it raises: the command line tells it."""

    @wraps(body)
    def told(*given: Given.args, **named: Given.kwargs) -> Found:
        try:
            return body(*given, **named)
        except Exception as error:
            if runtime.deployment.id is None:
                raise
            cause = cause_of(error)
            get_run_logger().error(cause, exc_info=not remedy_of(error, None))
            failed: Any = Failed(name=f"Failed: {cause if len(cause) <= MOST else cause[:MOST] + '…'}", message=cause)
            return failed

    told.__dict__["__signature__"] = signature(body, eval_str=True)  # its types by name are not this module's
    return told


def cause_of(error: Exception) -> str:
    """What the user can mend, or what kind of error it was."""
    return remedy_of(error, None) or f"{type(error).__name__}: {first_line(error)}"
