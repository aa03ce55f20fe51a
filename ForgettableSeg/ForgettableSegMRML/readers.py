"""The readers of Slicer that are not in the module `slicer`: the application keeps them in modules of their own."""

from __future__ import annotations

try:
    import vtkITK
    import vtkTeem
except ModuleNotFoundError:  # the slicer-core wheel has the same modules in its own package
    from slicer_core import vtkITK, vtkTeem

__all__ = ["vtkITK", "vtkTeem"]
