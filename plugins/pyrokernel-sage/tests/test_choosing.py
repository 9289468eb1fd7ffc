"""Which kernels are Sage kernels. Runs in the test process."""

from __future__ import annotations

from typing import Any

import pytest
from pyrokernel.commands import KernelIdentity
from pyrokernel.errors import SettingsError

import pyrokernel_sage as plugin
from pyrokernel_sage.choosing import is_sage_kernel


def test_a_tag_makes_a_sage_kernel() -> None:
    assert is_sage_kernel(KernelIdentity("k0", ("gpu", "sage")), {})
    assert not is_sage_kernel(KernelIdentity("k0", ("sagemath",)), {})


def test_installing_the_plugin_changes_no_kernel() -> None:
    assert not is_sage_kernel(KernelIdentity("sage"), {})


@pytest.mark.parametrize(
    ("chosen", "name", "expected"),
    [
        (["sage*"], "sage-1", True),
        (["sage*"], "k0", False),
        ("sage*", "sage-1", True),
        ("all", "k0", True),
        (["x", "k?"], "k0", True),
        ([], "k0", False),
    ],
)
def test_settings_name_sage_kernels_by_patterns(chosen: Any, name: str, expected: bool) -> None:
    assert is_sage_kernel(KernelIdentity(name), {"kernels": chosen}) is expected


@pytest.mark.parametrize("chosen", [True, 3, [1], {"a": 1}])
def test_settings_that_name_nothing_are_refused(chosen: Any) -> None:
    with pytest.raises(SettingsError, match=r"plugins\.sage\.kernels"):
        is_sage_kernel(KernelIdentity("k0"), {"kernels": chosen})


def test_other_kernels_get_nothing() -> None:
    other = KernelIdentity("k0", ("gpu",))
    assert plugin.pyrokernel_add_names(other, {}) == {}
    assert plugin.pyrokernel_transform_source("2^10", "<cell 1>", other, {}) is None
    plugin.pyrokernel_cell_started({}, other, {})
