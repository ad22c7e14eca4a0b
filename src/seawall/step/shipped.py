"""What a shipped step is: a function under a name and a version, guarded and counted wherever it is called.

    result = await ctx.step(http_request, "GET", "https://example.com/status")

The version is a part of the name under which a run keeps the step's result (``http_request@1``), and an import gives
the same version for ever. A change that a run under way could notice (other arguments, another result, another
idempotency key) is a new object with the next version beside the old one, so that a newer Seawall never makes a replay
do a step again.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from seawall.kernel import limit
from seawall.step.error import StepRefused
from seawall.step.toolbox import Toolbox, current

P = ParamSpec("P")
T = TypeVar("T")

VERSION_MAX = 9999
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Step(Generic[P, T]):
    """A step that others may use: give it to ``ctx.step``.

    Attributes:
        name: Of breakers and metrics.
        version: Of its arguments and its result.
        __name__: Both, as runs keep it.
    """

    def __init__(
        self,
        function: Callable[Concatenate[Toolbox, P], Awaitable[T]],
        *,
        name: str,
        version: int,
        service: Callable[..., str] | None,
    ) -> None:
        self.name = name
        self.version = version
        self._function = function
        self._service = service
        functools.update_wrapper(self, function)
        self.__name__ = f"{name}@{version}"
        signature = inspect.signature(function)
        self.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do it once: within ``ctx.step`` its result is kept; called by hand it is not.

        Raises:
            StepRefused: Not done, and never will be, as it stands.
            StepDeclined: The service says that it is wrong.
            StepUnavailable: It may work another time.
        """
        tools = current(self.name)
        try:
            service = "" if self._service is None else self._service(tools, *args, **kwargs)
        except StepRefused:
            tools.meter.refused(self.name)
            raise
        return await tools.meter.call(self.name, service, lambda: self._function(tools, *args, **kwargs))

    def __repr__(self) -> str:
        return f"<step {self.__name__}>"


def step(
    name: str, *, version: int, service: Callable[..., str] | None = None
) -> Callable[[Callable[Concatenate[Toolbox, P], Awaitable[T]]], Step[P, T]]:
    """Declare a step that is shipped: ``async def``, and what it needs of the worker comes as its first argument.

    Args:
        name: a-z, 0-9 and _, a letter first.
        version: From 1. Raise it, and keep the old step beside the new one, when a run under way could notice.
        service: Called like the step; says which service a call goes to, each of which has a breaker of its own.

    Raises:
        TypeError, ValueError: Says which declaration is wrong.
    """
    if not _NAME.fullmatch(name) or len(f"{name}@{VERSION_MAX}") > limit.NAME_CHARS_MAX:
        raise ValueError(f"step({name!r}): a-z, 0-9 and _ are needed, a letter first")
    if type(version) is not int or not 1 <= version <= VERSION_MAX:
        raise ValueError(f"step {name}: version={version!r}; a whole number of 1 to {VERSION_MAX} is needed")

    def declared(function: Any) -> Step[P, T]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"step {name}: write it as `async def`, with the toolbox as its first argument")
        return Step(function, name=name, version=version, service=service)

    return declared
