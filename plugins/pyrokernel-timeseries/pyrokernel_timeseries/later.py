"""NumPy, imported when it is first used. Runs in every process.

`TimeSeries` is a name in every kernel from its first cell on; NumPy takes a tenth of a
second, which only those pay who make a series. `importlib.util.LazyLoader` would put its
half-made NumPy into `sys.modules`, where everybody else's import finds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["np"]

if TYPE_CHECKING:
    import numpy as np
else:

    class _Later:
        """Has the attributes of NumPy; each is looked up once."""

        def __getattr__(self, name: str) -> Any:
            import numpy

            value = getattr(numpy, name)
            vars(self)[name] = value
            return value

    np = _Later()
