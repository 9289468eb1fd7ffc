"""The handler of SIGINT that stands between a kernel and cysignals. Runs in the test process."""

from __future__ import annotations

import signal
import sys
import traceback
from typing import Any

import pytest

from pyrokernel_sage import interrupts
from pyrokernel_sage.interrupts import Handler


class Kernel:
    """What a kernel has: a handler, and whether user code runs."""

    def __init__(self, armed: bool = True) -> None:
        self.armed = armed
        self.handled = 0

    def handle(self, signum: int, frame: Any) -> None:
        self.handled += 1


class Noted:
    """What cysignals has noted."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)

    def __call__(self, signum: int, frame: None) -> None:
        if self.errors:
            raise self.errors.pop()


class AlarmInterrupt(KeyboardInterrupt):
    """As cysignals has it."""


def test_a_signal_is_handled_by_the_kernel_and_forgotten_by_cysignals() -> None:
    kernel, noted = Kernel(), Noted(KeyboardInterrupt())
    Handler(kernel.handle, noted)(signal.SIGINT, None)
    assert kernel.handled == 1
    assert noted.errors == []


def test_the_kernel_takes_it_for_its_own() -> None:
    kernel = Kernel()
    handler = Handler(kernel.handle, Noted())
    assert handler == kernel.handle
    assert not handler != kernel.handle  # noqa: SIM202  this is how a kernel asks
    assert handler != Kernel().handle
    assert hash(handler) == hash(kernel.handle)


def test_an_alarm_is_raised_while_the_code_of_a_user_runs() -> None:
    kernel = Kernel()
    with pytest.raises(AlarmInterrupt):
        Handler(kernel.handle, Noted(AlarmInterrupt()))(signal.SIGALRM, None)
    assert kernel.handled == 0


def test_an_alarm_that_comes_late_does_nothing() -> None:
    kernel = Kernel(armed=False)
    Handler(kernel.handle, Noted(AlarmInterrupt()))(signal.SIGALRM, None)
    assert kernel.handled == 0


def test_tracebacks_do_not_show_it() -> None:
    def fail(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        Handler(fail, Noted())(signal.SIGINT, None)
    names = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert interrupts.__file__ not in names


def test_without_cysignals_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cysignals.signals", raising=False)
    before = signal.getsignal(signal.SIGINT)
    interrupts.keep()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_import_leaves_the_handler_as_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupts.undisturbed():
        signal.signal(signal.SIGINT, lambda signum, frame: None)
    assert signal.getsignal(signal.SIGINT) is before
