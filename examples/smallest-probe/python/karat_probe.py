"""What a probe in Python needs beside the generated bindings: cases that always end, lists, watches, readable errors.

One file, so that a project can simply hold a copy. It imports only interfaces that every probe has, and json: files, sockets,
random numbers and the clock of the operating system do not exist inside a probe.
"""

import json
from typing import Any, Callable, Iterator, Optional

from componentize_py_types import Err
from wit_world.imports import cases, clock, log, types, wait

#: Reasons that a probe may give for `unknown`. The engine adds others that only it may give.
REASONS = frozenset(
    {
        "no_accelerator", "unknown_accelerator", "solution_absent", "insufficient_capacity", "permission_denied",
        "image_unavailable", "proxy_unreachable", "auth_required", "metric_delayed", "competing_workload",
        "feature_gate_off", "version_skew", "deadline", "cleanup_incomplete",
    }
)


class Deadline(Exception):
    """Something waited for did not happen in time."""


class Unexpected(Exception):
    """An answer has not the form that its API documents."""


def text_of(error: BaseException) -> str:
    """An exception in one line, whoever raised it."""
    if not isinstance(error, Err):
        return f"{type(error).__name__}: {error}"
    value = error.value
    if isinstance(value, types.Error_Answered):
        answer = value.value
        return f"the server answered {answer.code} {answer.reason}: {answer.message}"
    if isinstance(value, types.Error_Refused):
        return f"refused by karat: {value.value}"
    word = type(value).__name__.removeprefix("Error_")
    return f"{word}: {value.value}" if hasattr(value, "value") else word


def is_not_found(error: BaseException) -> bool:
    """The server says that the object, or the resource, is not there."""
    return _code(error) == 404


def is_about_platform(error: BaseException) -> bool:
    """Whether the error is a statement of the platform about what was asked, so that it may prove a fail.

    A server in trouble (5xx, 429), missing rights (401, 403), other writers (409) and policies of the cluster are none.
    """
    if isinstance(error, Unexpected):
        return True
    code = _code(error)
    if code is None or not 400 <= code < 500 or code in (401, 403, 408, 409, 410, 429):
        return False
    return not error.value.value.message.startswith("admission webhook ")


def ends_the_probe(error: BaseException) -> bool:
    """Whether there is no use in asking on: a budget is used up, or the run is ending."""
    return isinstance(error, Err) and isinstance(error.value, (types.Error_Budget, types.Error_Stopping))


def _code(error: BaseException) -> Optional[int]:
    if isinstance(error, Err) and isinstance(error.value, types.Error_Answered):
        return error.value.value.code
    return None


class Case:
    """An open case, for a `with` block. A block that ends without a conclusion ends as `unknown`, never as a pass.

    An exception that a case can be judged by ends the block and not the probe.
    """

    def __init__(self, id: str, subject: str = ""):
        self._handle: Optional[cases.Case] = cases.open(id, subject)

    def observe(self, name: str, value: Any) -> None:
        """Shows a value. At least one value of a pass must occur in an answer of this case."""
        if self._handle is not None:
            self._handle.observe(name, str(value))

    def passed(self) -> None:
        """The claim held."""
        self._conclude(cases.Outcome_Pass())

    def failed(self, text: str) -> None:
        """The claim was contradicted."""
        # The contract's `fail` carries no text: the explanation is shown as a value instead.
        self.observe("contradiction", text)
        self._conclude(cases.Outcome_Fail())

    def unknown(self, reason: str, text: str) -> None:
        """Could not tell; the text says what would settle it."""
        if reason not in REASONS:
            raise ValueError(f"no such reason: {reason}")
        self._conclude(cases.Outcome_Unknown(f"{reason}: {text}"))

    def not_applicable(self, text: str) -> None:
        """The condition of the requirement does not arise."""
        self._conclude(cases.Outcome_NotApplicable(text))

    def _conclude(self, outcome: cases.Outcome) -> None:
        handle, self._handle = self._handle, None
        if handle is None:
            raise RuntimeError("the case was concluded before")
        cases.Case.conclude(handle, outcome)

    def __enter__(self) -> "Case":
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> bool:
        if self._handle is None:
            return False
        if error is None:
            self.unknown("deadline", "the probe left the case without a conclusion")
            return False
        if is_about_platform(error):
            self.failed(text_of(error))
            return True
        code = _code(error)
        refused = isinstance(error, Err) and isinstance(error.value, types.Error_Refused)
        reason = "deadline"
        if refused or code in (401, 403) or "admission webhook " in text_of(error):
            reason = "permission_denied"
        elif code == 409:
            reason = "competing_workload"
        self.unknown(reason, text_of(error))
        # A mistake of the probe itself, and an end of the run, are no business of one case.
        return isinstance(error, (Err, Deadline)) and not ends_the_probe(error)


def objects(query: Any) -> list[dict]:
    """All objects of a `kube_read.Query`, page by page and collected. Begins again at most three times when the server forgot its place."""
    for left in (3, 2, 1, 0):
        found: list[dict] = []
        try:
            cursor = query.open_list()
            while (page := cursor.next()) is not None:
                found.extend(json.loads(text) for text in page)
            return found
        except Err as error:
            if not isinstance(error.value, types.Error_Expired) or left == 0:
                raise
    raise Deadline("the list lost its place again and again")


def events(watch: Any, seconds: float, what: str) -> Iterator[tuple[str, Any]]:
    """The events of a `kube_read.Watch` as `(kind, object or text)`: `added`, `modified`, `deleted`, `synced`, `gap`.

    Raises `Deadline` with `what` when the time is up; leave the loop when you have seen enough.
    """
    end = clock.elapsed() + int(seconds * 1000)
    while True:
        event = watch.next()
        if event is not None:
            kind = type(event).__name__.removeprefix("Event_").lower()
            has_object = kind in ("added", "modified", "deleted")
            yield kind, json.loads(event.value) if has_object else event.value
            continue
        left = end - clock.elapsed()
        if left <= 0:
            raise Deadline(f"{what} did not happen within {seconds} s")
        wait.any([watch.ready()], left)


def run(check: Callable[[], None]) -> None:
    """Runs the probe. An exception that nobody caught would end the component without a word; here it is logged first."""
    try:
        check()
    except BaseException as error:  # the runtime has no handler above this one
        text = text_of(error)
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            text += f"\n  at {code.co_name} ({code.co_filename}:{trace.tb_lineno})"
            trace = trace.tb_next
        log.write("error", text)
        raise Err(text_of(error)) from None
