"""Lines between the processes of a run that another program has started, such as torchrun: who ends is missed at once.

The first process listens and all others call it. The system closes a line with the process that holds it, however that
ends. Without them a process would be missed only in the next exchange between all, which for a streaming model is the
end of its pass; and who waits for a word of the first process would wait for half an hour.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import sys
import threading
from collections.abc import Iterator

from zoo.training.processes import agree, ended, explained, global_rank, with_store

__all__ = ["linked"]

_GOODBYE, _KNOWN, _WELCOME = b".", b"!", b"+"
_TOKEN = 16  # bytes, by which the first process knows those of its run


@contextlib.contextmanager
def linked() -> Iterator[None]:
    """End this process within a second or two of another's end, in one line, while the block runs.

    Processes that Lightning starts are looked after by the one that started them: see `processes.together`.
    """
    if not with_store():
        yield
        return
    watch = _Watch()
    watch.start()
    in_concert = False
    try:
        with explained():
            yield
        in_concert = True
    except BaseException as error:
        in_concert = hasattr(error, "saved")  # all processes stop at a signal
        raise
    finally:
        watch.stop(in_concert)


class _Watch(threading.Thread):
    """Waits for the end of a line."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="zoo-lines")
        self.parent, self.rank, self.world_size = os.getppid(), global_rank(), int(os.environ["WORLD_SIZE"])
        self.over = threading.Event()
        self.lines: dict[socket.socket, int] = {}  # and who is at its other end
        self.chooser = selectors.DefaultSelector()
        self.server = socket.create_server(("", 0)) if self.rank == 0 else None
        token = secrets.token_hex(_TOKEN // 2)
        own = [_own_address(), socket.gethostname()]
        hosts, port, self.token = agree("lines", [own, self.server and self.server.getsockname()[1], token])
        if self.server is not None:
            self.chooser.register(self.server, selectors.EVENT_READ)
        elif (line := self._call([*hosts, os.environ["MASTER_ADDR"]], port)) is not None:
            self._add(line, 0)

    def _call(self, hosts: list[str], port: int) -> socket.socket | None:
        """Return a line to the first process, or None where it is not reached: then the next exchange will miss it."""
        for host in dict.fromkeys(hosts):
            with contextlib.suppress(OSError):
                line = socket.create_connection((host, port), timeout=5)
                line.sendall(self.token.encode() + self.rank.to_bytes(4))
                if line.recv(1) == _WELCOME:
                    return line
                line.close()
        return None

    def _add(self, line: socket.socket, rank: int) -> None:
        self.lines[line] = rank
        self.chooser.register(line, selectors.EVENT_READ)

    def _answer(self) -> None:
        """Take a call, if it is of this run."""
        assert self.server is not None
        with contextlib.suppress(OSError):
            line, _ = self.server.accept()
            line.settimeout(5)
            said = b""
            while len(said) < _TOKEN + 4 and (more := line.recv(_TOKEN + 4 - len(said))):
                said += more
            if said[:_TOKEN] == self.token.encode():
                line.sendall(_WELCOME)
                self._add(line, int.from_bytes(said[_TOKEN:]))
            else:
                line.close()

    def run(self) -> None:
        while not self.over.is_set():
            for key, _ in self.chooser.select(0.5):
                if key.fileobj is self.server:
                    self._answer()
                else:
                    self._hear(key.fileobj)  # type: ignore[arg-type]
            if os.getppid() != self.parent:
                self._end("what started this process has ended")

    def _hear(self, line: socket.socket) -> None:
        """Read what comes over a line, or that nothing will any more."""
        try:
            said = line.recv(1)
        except OSError:
            said = b""
        rank = self.lines.pop(line)
        self.chooser.unregister(line)
        line.close()
        if said != _GOODBYE:
            who = (
                f"the first of {self.world_size} processes" if rank == 0 else f"process {rank + 1} of {self.world_size}"
            )
            self._end(f"{who} has ended", silently=said == _KNOWN)

    def _end(self, what: str, silently: bool = False) -> None:
        """End this process, unless it is about to end with words of its own."""
        if self.over.wait(1):
            return
        if self.rank == 0:
            self._tell(_KNOWN)  # what is said here need not be said by each
        if not silently:
            print(f"error: {ended(what)}", file=sys.stderr, flush=True)
        os._exit(1)

    def _tell(self, said: bytes) -> None:
        for line in self.lines:
            with contextlib.suppress(OSError):
                line.sendall(said)

    def stop(self, in_concert: bool) -> None:
        """Hang up; the others end, too, unless all do so in concert."""
        self.over.set()
        self.join()
        if in_concert:
            self._tell(_GOODBYE)
        for line in [*self.lines, *([self.server] if self.server else [])]:
            line.close()
        self.chooser.close()


def _own_address() -> str:
    """The address of this machine on its way to the one where the processes meet."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_way:
        any_way.connect((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])))  # sends nothing
        return str(any_way.getsockname()[0])
    return "127.0.0.1"
