"""What a run shows in Prefect beside its states. It is courtesy: it neither ends a run nor holds it up."""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from storage.errors import first_line

SECONDS = 10.0

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


class Publisher:
    """Calls Prefect's API as long as it answers. Its first failure is told in one line, and is the last call."""

    def __init__(self) -> None:
        self._answers = True

    def __call__(self, call: Callable[Given, Answer], *given: Given.args, **named: Given.kwargs) -> Answer | None:
        """What the call returns, or None if it fails or takes too long; then it is left to itself."""
        if not self._answers:
            return None
        found: queue.Queue[Answer | Exception] = queue.Queue()
        context = contextvars.copy_context()

        def ask() -> None:
            try:
                found.put(call(*given, **named))
            except Exception as error:
                found.put(error)

        threading.Thread(target=context.run, args=(ask,), daemon=True, name="ddoq-publish").start()
        try:
            answer = found.get(timeout=SECONDS)
        except queue.Empty:
            answer = TimeoutError(f"no answer within {SECONDS:.0f} s")
        if not isinstance(answer, Exception):
            return answer
        self._answers = False
        told = (
            f"Prefect shows no more tables of this run, which goes on ({first_line(answer) or type(answer).__name__})"
        )
        logging.getLogger(__name__).warning(told)
        return None
