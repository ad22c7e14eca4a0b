"""The user's file: imported, and its ``App`` found."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from seawall.kernel.error import Misconfigured
from seawall.workflow import App


def load_app(file: str) -> App:
    """The ``App`` of a user's file: the one named ``app``, else the only one there is.

    Raises:
        Misconfigured: The file can't be imported, and why; it holds no App, or several; the App has no workflow.
    """
    path = Path(file)
    if not file or not path.is_file():
        raise Misconfigured([f"--app {file or '(none)'}: is not a file; name the file with your workflows"])
    # What lies beside the file can be imported from it, as when Python runs it.
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("seawall_user_app", path)
    if spec is None or spec.loader is None:
        raise Misconfigured([f"--app {file}: is no Python file; its name must end in .py"])
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's file does at import is said as one problem
        raise Misconfigured([f"--app {file}: can't be imported: {_where(error, path)}"]) from error
    app = _only_app(module, file)
    if not app.workflows:
        raise Misconfigured([f"--app {file}: declares no workflow; put @app.workflow(on=...) over a function"])
    return app


def _only_app(module: ModuleType, file: str) -> App:
    found = {id(value): value for value in vars(module).values() if isinstance(value, App)}
    named = vars(module).get("app")
    if isinstance(named, App):
        return named
    if len(found) != 1:
        raise Misconfigured([f"--app {file}: holds {len(found)} App objects; name the one to run `app`"])
    return next(iter(found.values()))


def _where(error: BaseException, path: Path) -> str:
    """An exception in one line, with the last line of the user's file that it passed."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"line {error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    place = f"line {lines[-1]}: " if lines else ""
    return f"{place}{type(error).__name__}: {error}"
