"""For the reference: a field's comment becomes its description, and a default its value.

`lam: float = 0.0  # λ of the fit` is how this code describes a field. mkdocstrings reads docstrings
only, and would show the default `DEFAULTS.lam` by that name.
"""

import ast
import importlib
from pathlib import Path
from typing import Any

import griffe


class Fields(griffe.Extension):
    """Loaded by mkdocs.yml."""

    def on_class_members(self, *, node: Any, cls: griffe.Class, **_: Any) -> None:
        """Adds the fields that have comments to the docstring of their class."""
        lines = Path(cls.filepath).read_text().splitlines()
        fields = []
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                _, mark, comment = lines[field.end_lineno - 1].partition("  # ")
                if mark:
                    kind = ast.unparse(field.annotation)
                    fields.append(f"  {field.target.id} ({kind}): {comment}")
        if fields and cls.docstring:
            cls.docstring.value += "\n\nAttributes:\n" + "\n".join(fields)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Replaces defaults such as `DEFAULTS.tolerance`."""
        for parameter in func.parameters:
            name, _, field = str(parameter.default).partition(".")
            if name == "DEFAULTS":
                defaults = importlib.import_module(func.module.path).DEFAULTS
                value = getattr(defaults, field) if field else type(defaults)
                parameter.default = getattr(value, "__name__", repr(value)) + "()" * (not field)
