"""The part of ForgettableSeg that turns files into MRML nodes and back: slicer and vtk only, no Qt, no application."""
