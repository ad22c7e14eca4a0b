"""The fault proxy as a part: a process of its own with its links, told what to break over a unix socket.

In a test's own event loop use `link.Proxy` itself. This one is for commands, which start it and leave it running, and
for callers that block. On its control socket (``control`` in the part's folder, 0600) each line is a JSON object, as is
its answer: ``{"do": "status"}``, ``{"do": "link", "name": …, "upstream": PORT, "port": 0}``,
``{"do": "set", "name": …, "faults": [{"kind": "latency", "ms": 200}, …]}``. An answer has ``error`` when it failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from seawall.kernel.error import Rejected, SeawallError, Unavailable
from seawall.lab.part import fault
from seawall.lab.part.fault import Fault
from seawall.lab.part.link import Proxy
from seawall.lab.part.node import FETCHED, Say, quiet, whole
from seawall.lab.part.part import Part
from seawall.lab.part.process import Launch

CONTROL = "control"
LINKS = "links.json"
LINE_BYTES_MAX = 64 * 1024
CONTROLS_MAX = 16
ASK_S = 10.0
IDLE_S = 300.0


class FaultProxy(Part):
    """The proxy in a process of its own. Node: ``proxy``. Its links stay when it is started again; faults don't."""

    kind = "proxy"
    end_s = 5.0

    def __init__(self, folder: Path, *, fetched: Path = FETCHED, say: Say = quiet) -> None:
        super().__init__(folder, nodes=["proxy"], ports=[], fetched=fetched, say=say)

    def link(self, name: str, upstream: int, *, port: int = 0) -> int:
        """Make a line to a server on loopback, or point one at another server.

        Returns:
            The port where clients come.

        Raises:
            Rejected: The proxy refused; says why.
            Unavailable: It doesn't answer.
        """
        said = self._ask(do="link", name=name, upstream=upstream, port=port)
        chosen = said["port"]
        assert isinstance(chosen, int)
        links = self._links()
        links[name] = (upstream, chosen)
        whole(self.folder / LINKS, json.dumps(links))
        return chosen

    def set(self, name: str, *faults: Fault) -> None:
        """These faults, and no other, on a link. Raises as `link`."""
        self._ask(do="set", name=name, faults=[each.said() for each in faults])

    def clear(self, name: str) -> None:
        """Nothing is wrong with a link any more. Raises as `link`."""
        self.set(name)

    def links(self) -> Mapping[str, Mapping[str, object]]:
        """Every link: port, server behind, faults, counts. Raises as `link`."""
        said = self._ask(do="status")["links"]
        assert isinstance(said, dict)
        return said

    # ── As a part ──────────────────────────────────────────────────────────────────────────────────────────────────
    def prepare(self) -> None:
        """Nothing is needed but ourselves."""
        assert sys.executable, "Python itself is the program"

    def launch(self, node: str) -> Launch:
        (self.folder / CONTROL).unlink(missing_ok=True)
        # It finds its modules as we do: by an installed package, or where a test or a caller put them.
        return Launch(
            command=[sys.executable, "-m", "seawall.lab.part.proxy", str(self.folder)],
            environment={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def open(self, node: str) -> bool:
        try:
            self._ask(do="status")
        except Unavailable:
            return False
        return True

    def unready(self) -> str:
        return ""

    def unsettled(self) -> str:
        """Every link is as it should be."""
        broken = [name for name, link in self.links().items() if link["faults"]]
        return f"faults on {', '.join(broken)}" if broken else ""

    def _links(self) -> dict[str, tuple[int, int]]:
        return _saved(self.folder)

    def _ask(self, **request: object) -> dict[str, object]:
        try:
            with _place(self.folder) as place, socket.socket(socket.AF_UNIX) as line:
                line.settimeout(ASK_S)
                line.connect(place)
                line.sendall(json.dumps(request).encode() + b"\n")
                with line.makefile("rb") as answer:
                    said = json.loads(answer.readline(LINE_BYTES_MAX * 16))
        except (OSError, ValueError) as error:
            raise Unavailable("the proxy", str(error)) from error
        if "error" in said:
            raise Rejected(said.get("status", 400), "refused by the proxy", str(said["error"]))
        return dict(said)


@contextlib.contextmanager
def _place(folder: Path) -> Iterator[str]:
    """A short name for the control socket: a unix address has room for 107 bytes, and a folder may lie deep."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{CONTROL}"
    finally:
        os.close(descriptor)


def _saved(folder: Path) -> dict[str, tuple[int, int]]:
    try:
        said = json.loads((folder / LINKS).read_text())
        return {str(name): (int(upstream), int(port)) for name, (upstream, port) in said.items()}
    except (OSError, ValueError):
        return {}


# ── The process ────────────────────────────────────────────────────────────────────────────────────────────────────
class Control:
    """Answers on the control socket."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: a line, its answer, and so on; ``IDLE_S`` without a line ends it."""
        self._open += 1
        try:
            while self._open <= CONTROLS_MAX:
                line = await asyncio.wait_for(reader.readline(), IDLE_S)
                if not line:
                    break
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await asyncio.wait_for(writer.drain(), ASK_S)
        except (OSError, ValueError, TimeoutError):
            pass  # it left, or sent a line longer than LINE_BYTES_MAX
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, line: bytes) -> Mapping[str, object]:
        try:
            request = json.loads(line)
            return await self._do(request)
        except Rejected as error:
            return {"error": f"{error}", "status": error.status}
        except (SeawallError, ValueError, KeyError, TypeError, AttributeError) as error:
            return {"error": f"{error}" or type(error).__name__}

    async def _do(self, request: Mapping[str, object]) -> Mapping[str, object]:
        do, name = request["do"], str(request.get("name", ""))
        if do == "status":
            return {"links": self._proxy.status()}
        if do == "link":
            upstream, port = int(str(request["upstream"])), int(str(request.get("port", 0)))
            return {"port": (await self._proxy.link(name, upstream, port=port)).port}
        if do == "set":
            if name not in self._proxy.links:
                raise Rejected(404, "no such link", f"{name}; there are {', '.join(self._proxy.links) or 'none'}")
            faults = request["faults"]
            if not isinstance(faults, list):
                raise Rejected(400, "not a list of faults", repr(faults))
            await self._proxy.links[name].set(*[fault.parse(each) for each in faults])
            return {"ok": True}
        raise Rejected(400, "unknown", f"do: {do!r}; status, link or set")


async def _main(folder: Path) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with Proxy() as proxy:
        for name, (upstream, port) in _saved(folder).items():
            await proxy.link(name, upstream, port=port)
        with _place(folder) as place:
            # Mode 0600 comes from the umask; an older socket's file is removed by whoever starts us.
            server = await asyncio.start_unix_server(Control(proxy).serve, place, limit=LINE_BYTES_MAX)
        await stopping.wait()
        server.close()


if __name__ == "__main__":
    os.umask(0o077)
    asyncio.run(_main(Path(sys.argv[1])))
