"""Which names of Slicer the sources use, and of which class an object is where its source tells it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from house import SLICER_SIDE, python_files, tree_of

MODULES = ("slicer", "vtk", "vtkITK", "vtkTeem", "vtkSegmentationCore")
# Methods that make or find a node of the class that one of their arguments names.
_FACTORIES = {"AddNewNodeByClass", "CreateNodeByClass", "GetNthNodeByClass", "GetFirstNodeByClass", "GetSingletonNode"}
# What a method returns, wherever it is called, as far as one answer fits all of its classes.
_RETURNS = {
    "GetBinaryLabelmapRepresentation": "vtkOrientedImageData",
    "GetImageData": "vtkImageData",
    "GetMatrixTransformToParent": "vtkMatrix4x4",
    "GetObjectToWorldMatrix": "vtkMatrix4x4",
    "GetActiveCamera": "vtkCamera",
    "GetParentTransformNode": "vtkMRMLTransformNode",
    "GetPointData": "vtkPointData",
    "GetProperty": "vtkProperty2D",
    "GetScalarVolumeDisplayNode": "vtkMRMLScalarVolumeDisplayNode",
    "GetScene": "vtkMRMLScene",
    "GetSegment": "vtkSegment",
    "GetNthSegment": "vtkSegment",
    "GetSegmentation": "vtkSegmentation",
    "GetSelectionNode": "vtkMRMLSelectionNode",
    "GetSliceCompositeNode": "vtkMRMLSliceCompositeNode",
    "GetSliceToRAS": "vtkMatrix4x4",
    "AddSliceNode": "vtkMRMLSliceNode",
    "AddDefaultColorLegendDisplayNode": "vtkMRMLColorLegendDisplayNode",
    "GetColorLegendDisplayNode": "vtkMRMLColorLegendDisplayNode",
    "GetColorLogic": "vtkMRMLColorLogic",
    "GetColorNode": "vtkMRMLColorNode",
    "GetSubjectHierarchyNode": "vtkMRMLSubjectHierarchyNode",
    "GetTable": "vtkTable",
    "mrmlSliceCompositeNode": "vtkMRMLSliceCompositeNode",
    "mrmlPlotViewNode": "vtkMRMLPlotViewNode",
    "mrmlSliceNode": "vtkMRMLSliceNode",
    "applicationLogic": "vtkMRMLApplicationLogic",
}
_MODULE_LOGICS = {
    "slicer.modules.markups.logic": "vtkSlicerMarkupsLogic",
    "slicer.modules.plots.logic": "vtkSlicerPlotsLogic",
}
_DISPLAY = {
    "vtkMRMLSegmentationNode": "vtkMRMLSegmentationDisplayNode",
    "vtkMRMLScalarVolumeNode": "vtkMRMLScalarVolumeDisplayNode",
}


@dataclass(frozen=True)
class Use:
    """A name that is asked of a module or of an object.

    Args:
        place: file and line.
        owner: dotted module ("slicer.util"), class ("vtkMRMLScene"), or nothing where the source does not tell it.
        name: what is asked for.
    """

    place: str
    owner: str
    name: str


@dataclass
class _Scope:
    """Classes of the variables of a function, its surroundings included; None where there are several."""

    variables: dict[str, str | None] = field(default_factory=dict)
    attributes: dict[str, str | None] = field(default_factory=dict)  # of self
    functions: dict[str, ast.expr | None] = field(default_factory=dict)  # their return annotations

    def learn(self, target: ast.expr, found: str | None) -> None:
        """Note the class of what is assigned to a target."""
        if isinstance(target, ast.Name):
            kept, name = self.variables, target.id
        elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
            kept, name = self.attributes, target.attr
        else:
            return
        kept[name] = found if kept.get(name, found) == found else None


def uses_in(tree: ast.Module, place: str) -> list[Use]:
    """Everything that a file asks of Slicer's modules, and every capital name that it asks of an object."""
    others = {
        alias.asname or alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if alias.name.split(".")[0] not in MODULES
    }
    uses = [Use(f"{place}:{line}", module, name) for module, name, line in _imported(tree)]
    functions = {node.name: node.returns for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for body, scope in _scopes(tree, functions):
        for node in body:
            if isinstance(node, ast.Attribute):
                uses += [Use(f"{place}:{node.lineno}", *found) for found in _asked(node, scope, others)]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _FACTORIES:
                uses += [Use(f"{place}:{node.lineno}", "slicer", text) for text in _node_classes(node)]
    return uses


def class_of(node: ast.expr, scope: _Scope) -> str | None:
    """The class of an expression's value, or the class itself that it names; None where the source does not tell."""
    if isinstance(node, ast.Name):
        return scope.variables.get(node.id)
    if isinstance(node, ast.Attribute):
        dotted = _dotted(node)
        if dotted == "slicer.mrmlScene":
            return "vtkMRMLScene"
        return node.attr if _is_class(dotted) else scope.attributes.get(node.attr) if dotted[:5] == "self." else None
    if isinstance(node, ast.IfExp):
        return class_of(node.body, scope) or class_of(node.orelse, scope)
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name):
        return annotated(scope.functions.get(node.func.id))
    if isinstance(node.func, ast.Attribute):
        return _returned(node, node.func, scope)
    return None


def annotated(annotation: ast.expr | None, *, element: bool = False) -> str | None:
    """The class that an annotation names, `| None` left aside; of an element where that is asked for."""
    if isinstance(annotation, ast.BinOp):
        sides = [annotated(annotation.left, element=element), annotated(annotation.right, element=element)]
        return next((each for each in sides if each), None)
    if element:
        return annotated(annotation.slice) if isinstance(annotation, ast.Subscript) else None
    dotted = _dotted(annotation) if annotation is not None else ""
    return dotted.rpartition(".")[2] if _is_class(dotted) else None


def project_uses() -> list[Use]:
    """The uses of all sources of the Slicer side."""
    return [use for file in python_files(SLICER_SIDE) for use in uses_in(tree_of(file), str(file))]


def classes_in_use() -> set[str]:
    """Classes of Slicer that the sources name, make, find or ask something of."""
    return {name for use in project_uses() for name in (use.owner, use.name) if name.startswith("vtk")}


def _asked(node: ast.Attribute, scope: _Scope, others: set[str]) -> Iterator[tuple[str, str]]:
    """Owner and name of what one attribute asks for: of a module, and of an object or class where it is capital."""
    before = _dotted(node.value)
    if _is_module(before) and not _is_class(before):
        yield before, node.attr
    owner = class_of(node.value, scope)
    if node.attr[0].isupper() and before.split(".")[0] not in others and (owner or not _is_module(before)):
        yield owner or "", node.attr


def _node_classes(node: ast.Call) -> list[str]:
    texts = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return [text for text in texts if text.startswith("vtk")]


def _returned(node: ast.Call, function: ast.Attribute, scope: _Scope) -> str | None:
    if _is_class(_dotted(function)):
        return function.attr
    if function.attr in _FACTORIES:
        return next(iter(_node_classes(node)), None)
    if function.attr == "AddNode" and node.args:
        return class_of(node.args[0], scope)
    if function.attr == "GetDisplayNode":
        return _DISPLAY.get(class_of(function.value, scope) or "", "vtkMRMLDisplayNode")
    return _MODULE_LOGICS.get(_dotted(function)) or _RETURNS.get(function.attr)


def _scopes(tree: ast.Module, functions: dict[str, ast.expr | None]) -> Iterator[tuple[list[ast.AST], _Scope]]:
    """The nodes of each function, and of the rest of the file, with the classes of the variables that they see."""
    inside: set[int] = set()
    for owner in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]:
        attributes: dict[str, str | None] = {}
        members = [node for node in ast.iter_child_nodes(owner) if isinstance(node, ast.FunctionDef)]
        scopes = [_Scope(_parameters(member), attributes, functions) for member in members]
        for _again in range(2):  # an attribute may be learnt of in a later function, a variable from another one
            for member, scope in zip(members, scopes, strict=True):
                _learn(member, scope)
        for member, scope in zip(members, scopes, strict=True):
            body = list(ast.walk(member))
            inside |= {id(node) for node in body}
            yield body, scope
    yield [node for node in ast.walk(tree) if id(node) not in inside], _Scope(functions=functions)


def _parameters(function: ast.FunctionDef) -> dict[str, str | None]:
    nested = [node for node in ast.walk(function) if isinstance(node, ast.FunctionDef)]
    arguments = [each for node in nested for each in (*node.args.args, *node.args.kwonlyargs)]
    return {argument.arg: annotated(argument.annotation) for argument in arguments}


def _learn(function: ast.FunctionDef, scope: _Scope) -> None:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                scope.learn(target, class_of(node.value, scope))
        elif isinstance(node, ast.AnnAssign):
            scope.learn(node.target, annotated(node.annotation))
        elif isinstance(node, ast.For | ast.comprehension):
            call = node.iter if isinstance(node.iter, ast.Call) else None
            name = call.func.id if call is not None and isinstance(call.func, ast.Name) else ""
            scope.learn(node.target, annotated(scope.functions.get(name), element=True))


def _imported(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in MODULES:
            yield from ((node.module or "", alias.name, node.lineno) for alias in node.names if node.module != "vtk")


def _is_class(dotted: str) -> bool:
    module, _, name = dotted.rpartition(".")
    return module in MODULES and name.startswith("vtk")


def _is_module(dotted: str) -> bool:
    return dotted in MODULES or dotted.startswith("slicer.")


def _dotted(node: ast.AST | None) -> str:
    """`a.b.c` as text; nothing where something else than names stands in it."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return ".".join([node.id, *parts]) if isinstance(node, ast.Name) else ""
