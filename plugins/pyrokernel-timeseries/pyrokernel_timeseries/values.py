"""What makes a time series a list of floats: making, indexing, comparing, copying. Runs in every process."""

from __future__ import annotations

import copyreg
import operator
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self, SupportsFloat, SupportsIndex, overload

from pyrokernel_timeseries.later import np

if TYPE_CHECKING:
    import builtins

    import numpy.typing as npt

__all__ = ["MAX_PRINT", "PRECISION", "Values"]

MAX_PRINT = 10
"""A longer series is shown by half as many values from either end."""
PRECISION = 4
"""How many digits after the point are shown."""

_ITERATED = 4096
"""How many values iteration turns into Python floats at a time."""


class Values:
    """A list of floats in one block of memory, float64.

    Args:
        values: A length, for that many zeros; or numbers; or an array, which is flattened. They are copied.
        initialize: False leaves the entries of a series of given length undefined, which is quicker.

    Raises:
        TypeError: It is neither a length nor numbers.
        ValueError: The length is negative, or something in `values` is no number.
    """

    __slots__ = ("_values",)

    # An array or a NumPy number on the left leaves `+` and `*` to us: `np.int64(3) * series` repeats the series.
    __array_priority__ = 1000.0
    __hash__ = None  # type: ignore[assignment]  # it can change

    def __init__(self, values: SupportsIndex | Iterable[SupportsFloat], initialize: bool = True) -> None:
        self._values: npt.NDArray[np.float64]
        if isinstance(values, Values):
            self._values = values._values.copy()
        elif isinstance(values, np.ndarray):
            if values.dtype.kind == "c":
                raise TypeError("a time series has real values, not complex ones")
            self._values = np.array(values, dtype=np.float64, order="C").reshape(-1)
        elif isinstance(values, SupportsIndex):
            length = operator.index(values)
            if length < 0:
                raise ValueError(f"a time series cannot have {length} values")
            self._values = np.zeros(length) if initialize else np.empty(length)
        else:
            try:
                numbers = iter(values)
            except TypeError:
                kind = type(values).__name__
                message = f"a time series is made from its length or from numbers, not from {kind} {values!r}"
                raise TypeError(message) from None
            self._values = np.fromiter(map(float, numbers), np.float64)

    @classmethod
    def _of(cls, values: npt.NDArray[np.float64]) -> Self:
        """Make a series that takes over an array."""
        series = cls.__new__(cls)
        series._values = values
        return series

    def __reduce__(self) -> tuple[Any, ...]:
        # The array goes as the state: pickle protocol 5 can then send its buffer beside the pickle, uncopied.
        return copyreg.__newobj__, (type(self),), self._values  # type: ignore[attr-defined]

    def __setstate__(self, values: npt.NDArray[np.float64]) -> None:
        # An array over a buffer that travelled beside its pickle may be read-only; a series can change.
        self._values = values if values.flags.writeable else values.copy()

    def __copy__(self) -> Self:
        return self._of(self._values.copy())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            return self._values.astype(dtype or self._values.dtype, copy=False)
        return np.array(self._values, dtype=dtype)

    def __repr__(self) -> str:
        return self._repr()

    def _repr(self, prec: int | None = None) -> str:
        digits = PRECISION if prec is None else prec
        half = MAX_PRINT // 2

        def shown(values: npt.NDArray[np.float64]) -> str:
            return ", ".join(f"{value:.{digits}f}" for value in values.tolist())

        if len(self) > MAX_PRINT:
            return f"[{shown(self._values[:half])} ... {shown(self._values[-half:])}]"
        return f"[{shown(self._values)}]"

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[float]:
        for start in range(0, len(self), _ITERATED):
            yield from self._values[start : start + _ITERATED].tolist()

    @overload
    def __getitem__(self, i: SupportsIndex) -> float: ...
    @overload
    def __getitem__(self, i: slice) -> Self: ...
    def __getitem__(self, i: SupportsIndex | slice) -> float | Self:
        if isinstance(i, slice):
            return self._of(self._values[i].copy())
        return float(self._values[self._place(i)])

    def __setitem__(self, i: SupportsIndex, x: SupportsFloat) -> None:
        self._values[self._place(i)] = float(x)

    def _place(self, i: SupportsIndex) -> int:
        place = operator.index(i)
        if not -len(self) <= place < len(self):
            raise IndexError("TimeSeries index out of range")
        return place

    def __add__(self, right: object) -> Self:
        if not isinstance(right, Values):
            raise TypeError("right operand must be a time series; add_scalar and add_entries add numbers")
        return self._of(np.concatenate((self._values, right._values)))

    def __radd__(self, left: object) -> Self:
        raise TypeError("left operand must be a time series; add_scalar and add_entries add numbers")

    def __mul__(self, times: SupportsIndex) -> Self:
        return self._of(np.tile(self._values, max(operator.index(times), 0)))

    __rmul__ = __mul__

    def _compare(self, other: Values) -> int:
        """Return a number below, at or above 0, as lists compare; a NaN is above everything, itself included."""
        n = min(len(self), len(other))
        differs = self._values[:n] != other._values[:n]
        if differs.any():
            first = int(differs.argmax())
            return -1 if self._values[first] < other._values[first] else 1
        return len(self) - len(other)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Values):
            return NotImplemented
        return len(self) == len(other) and self._compare(other) == 0

    def __lt__(self, other: object) -> bool:
        return self._compare(other) < 0 if isinstance(other, Values) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self._compare(other) <= 0 if isinstance(other, Values) else NotImplemented

    def __gt__(self, other: object) -> bool:
        return self._compare(other) > 0 if isinstance(other, Values) else NotImplemented

    def __ge__(self, other: object) -> bool:
        return self._compare(other) >= 0 if isinstance(other, Values) else NotImplemented

    def list(self) -> builtins.list[float]:
        """Return the values as Python floats."""
        return list(self)

    def numpy(self, copy: bool = True) -> npt.NDArray[np.float64]:
        """Return the values as an array, shape (n,), float64.

        Args:
            copy: False returns the memory of the series itself: what changes there changes here, until `extend`.
        """
        return self._values.copy() if copy else self._values

    def extend(self, right: SupportsIndex | Iterable[SupportsFloat]) -> None:
        """Append values; a number appends that many zeros."""
        added = right if isinstance(right, Values) else Values(right)
        self._values = np.concatenate((self._values, added._values))

    def reversed(self) -> Self:
        """Return the values from last to first."""
        return self[::-1]

    def clip_remove(self, min: float | None = None, max: float | None = None) -> Self:
        """Return the values from `min` to `max`, both included; None means without bound."""
        kept = np.ones(len(self), dtype=bool)
        if min is not None:
            kept &= self._values >= min
        if max is not None:
            kept &= self._values <= max
        return self._of(self._values[kept])
