"""Lists the commands: `python -m experiments`."""

import ast
import difflib
import pkgutil
import sys
from pathlib import Path

import experiments


def summaries() -> dict[str, str]:
    """The first line of each command's docstring, by its name."""
    lines = {}
    for module in pkgutil.iter_modules(experiments.__path__):
        if module.name not in ("common", "__main__"):
            path = Path(experiments.__path__[0]) / module.name
            source = path / "__main__.py" if module.ispkg else path.with_suffix(".py")
            docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
            lines[module.name] = (docstring or "").splitlines()[0]
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 1:
        close = difflib.get_close_matches(sys.argv[1], summaries(), 1) or ["NAME"]
        print(f"error: run it as python -m experiments.{close[0]}", file=sys.stderr)
        sys.exit(1)
    print("Commands; --helpshort explains the flags of each:\n")
    for name, line in summaries().items():
        print(f"  python -m experiments.{name:<16} {line}")
