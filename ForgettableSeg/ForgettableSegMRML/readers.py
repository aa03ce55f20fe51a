"""The readers of Slicer that are not in the module `slicer`: the application keeps them in a module of their own."""

from __future__ import annotations

try:
    import vtkITK
except ModuleNotFoundError:  # the slicer-core wheel has the same module in its own package
    from slicer_core import vtkITK

__all__ = ["vtkITK"]
