"""`demo`: the main job on real input, and what survives a kill. Runs in the caller's process.

The job: survey every file of the running interpreter's standard library, spread over the
kernels of a private mesh, and once more on one kernel alone. Then a client is killed in
the middle of a cell, and a kernel is.
"""

from __future__ import annotations

import argparse
import heapq
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from pyrokernel import survey, systems
from pyrokernel.client.group import Group
from pyrokernel.client.kernel import Kernel
from pyrokernel.client.launch import local
from pyrokernel.client.mesh import Mesh, connect
from pyrokernel.errors import KernelDiedError, PyrokernelError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.progress import Progress
from pyrokernel.front.terminal import complain, paint, say
from pyrokernel.messages import Event, EventKind
from pyrokernel.texts import plural, span

_SURVEY = """
import gc
import time
import pyrokernel.survey

gc.disable()  # a syntax tree has no cycles, and findings only pile up
[paths] = share  # scatter cuts a sequence; the sequence was one of shares
findings, told = [], time.monotonic()
for path in paths:
    findings.append(pyrokernel.survey.survey_file(path))
    if time.monotonic() - told > 0.2:
        print(len(findings))
        told = time.monotonic()
print(len(findings))
gc.enable()
"""

_LINES = 20
_SLOW_CELL = f"""
import time

for number in range(1, {_LINES + 1}):
    print("line", number)
    time.sleep(0.15)
number
"""

_CLIENT = """
import sys
import pyrokernel

cell = pyrokernel.connect()[sys.argv[1]].submit(sys.argv[2])
print(cell.id, flush=True)
for event in cell.follow():
    if event.kind == "output":
        print(event.data["text"], end="", flush=True)
"""
_LINES_BEFORE_KILL = 5

_DOOMED_CELL = """
import time

print("measuring ...")
time.sleep(60)
"""


def main(args: argparse.Namespace) -> int:
    """Run the demo; its exit code says whether everything held."""
    count = max(2, args.number or min(_processors(), 8))
    files = survey.stdlib_files()[:: 10 if args.quick else 1]
    say(f"This takes {'a few seconds' if args.quick else 'about half a minute'}; nothing of it stays.")
    begun = time.perf_counter()
    with local(count) as mesh:
        say(f"{plural(len(mesh), 'kernel')} of a private mesh answer after {span(time.perf_counter() - begun)}")
        held = [show_survey(mesh, files), show_client_killed(mesh), show_kernel_killed(mesh)]
    say()
    if not all(held):
        complain("not everything held; see above")
        return ExitCode.FAILED
    program = own_command()
    say(f"Kernels that stay when you leave: {program} serve -n 2 --detach, then {program} shell")
    return ExitCode.OK


def own_command() -> str:
    """Return what runs this command line from where it was run: its name alone does so where that is on the PATH."""
    script = sys.argv[0]
    if os.path.basename(script) != "pyrokernel":
        return f"{shlex.quote(sys.executable)} -m pyrokernel"
    found = shutil.which("pyrokernel")
    return "pyrokernel" if found and os.path.samefile(found, script) else shlex.quote(script)


def show_survey(mesh: Mesh, files: Sequence[str]) -> bool:
    """Survey files on all kernels and on one, print the findings, and say whether both found the same."""
    _title(f"Surveying {plural(len(files), 'file')} of the standard library")
    with Progress("all kernels", len(files)) as progress:
        together, time_together = survey_on(mesh[:], files, progress)
    with Progress("one kernel", len(files)) as progress:
        alone, time_alone = survey_on(mesh[:1], files, progress)
    say()
    say(survey.format_table(together))
    say()
    say(f"time on one kernel   {time_alone:6.2f} s")
    faster = f"{time_alone / time_together:.1f} times as fast"
    say(f"time on {plural(len(mesh), 'kernel'):<12} {time_together:6.2f} s   {faster}")
    same = together == alone
    say("the findings are the same, on one and on all" if same else "the findings DIFFER between one and all")
    return same


def survey_on(
    group: Group, files: Sequence[str], progress: Callable[[Mapping[str, tuple[int, int]]], None] | None = None
) -> tuple[survey.Summary, float]:
    """Spread files over kernels, let each look at its share, and join what they found.

    Args:
        group: The kernels.
        files: Paths that they can read.
        progress: Called with (done, total) by kernel name, as it changes.

    Returns:
        The findings, and the seconds it took from scattering the paths to having them.

    Raises:
        RemoteError: The survey raised. KernelDiedError: A kernel died under way.
    """
    begun = time.perf_counter()
    # By name, large files among small ones: in the order of `balance` the progress would stand still, then leap.
    shares = [sorted(share) for share in balance(files, len(group))]
    group.scatter("share", shares)
    cells = group.submit(_SURVEY, want="none")
    counts = {name: (0, len(share)) for name, share in zip(group.names, shares, strict=True)}
    for name, event in group.follow(cells):
        if isinstance(event, PyrokernelError):
            raise event
        done = _last_number(event)
        if done:
            counts[name] = (done, counts[name][1])
            if progress is not None:
                progress(counts)
    for cell in cells.values():
        cell.reply(timeout=group.mesh.settings.timeout)  # raises if its code did
    summary = survey.merge([group.gather("findings")])
    return summary, time.perf_counter() - begun


def balance(files: Sequence[str], count: int, size: Callable[[str], int] = os.path.getsize) -> list[list[str]]:
    """Divide files into shares of about equal bytes: the largest file first, each to the lightest share.

    Source: R. Graham, "Bounds on multiprocessing timing anomalies", 1969 (longest processing time first).
    """
    shares: list[list[str]] = [[] for _ in range(count)]
    load = [(0, number) for number in range(count)]
    for path in sorted(files, key=lambda path: (-size(path), path)):
        weight, number = heapq.heappop(load)
        shares[number].append(path)
        heapq.heappush(load, (weight + size(path), number))
    return shares


def show_client_killed(mesh: Mesh) -> bool:
    """Kill a client in the middle of its cell, and let another pick up everything."""
    _title("A client is killed in the middle of a cell")
    kernel: Kernel = mesh[0]
    client = subprocess.Popen(
        [sys.executable, "-c", _CLIENT, kernel.name, _SLOW_CELL],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **mesh.settings.to_env()},
    )
    assert client.stdout is not None
    with client, client.stdout:
        cell_id = client.stdout.readline().strip()
        seen = [client.stdout.readline() for _ in range(_LINES_BEFORE_KILL)]
        client.kill()
    if not cell_id or not seen[-1]:
        complain("the client ended before it could be killed")
        return False
    say(f"process {client.pid} followed its cell on {kernel.name} for {len(seen)} of {_LINES} lines, then: SIGKILL")
    with connect(mesh.settings) as other:
        cell = other[kernel.name].cell(cell_id)
        text = "".join(event.data["text"] for event in cell.follow() if event.kind == EventKind.OUTPUT)
        result = cell.reply(timeout=mesh.settings.timeout).text
    lines = text.splitlines()
    held = lines == [f"line {number}" for number in range(1, _LINES + 1)] and result == str(_LINES)
    say(f"another client replayed it from its beginning and followed it to its end: {len(lines)} of {_LINES} lines, "
        f"result {result}" + ("" if held else ", which is NOT what the cell printed"))  # fmt: skip
    return held


def show_kernel_killed(mesh: Mesh) -> bool:
    """Kill a kernel in the middle of its cell; show what is known of its death, and that its name answers again."""
    _title("A kernel is killed in the middle of a cell")
    kernel: Kernel = mesh[1]
    pid = kernel.describe()["pid"]
    cell = kernel.submit(_DOOMED_CELL)
    killed = 0.0
    try:
        for event in cell.follow():
            if event.kind == EventKind.OUTPUT:
                killed = time.perf_counter()
                os.kill(pid, systems.KILL)
    except KernelDiedError as death:
        say(f"{kernel.name} (process {pid}) was killed; its caller knew {span(time.perf_counter() - killed)} later:")
        _describe_death(death)
        known = death.signal == systems.KILL and (death.last_cell or {}).get("cell") == cell.id
    else:
        complain(f"{kernel.name} did not die")
        return False
    fresh: Kernel = mesh[kernel.name]  # which waits for the instance that follows
    answer = fresh.execute("1 + 1").text
    away = span(time.perf_counter() - killed)
    say(f"{kernel.name} answers again {away} after the kill, as instance {fresh.instance}: 1 + 1 = {answer}")
    others = ", ".join(name for name in mesh.names if name != kernel.name)
    say(f"nothing else noticed: {others} went on")
    return known and answer == "2"


def _describe_death(death: KernelDiedError) -> None:
    source = str((death.last_cell or {}).get("source", "")).strip().splitlines()
    say(f"  cause        {death.cause}")
    for number, line in enumerate(source):
        say(f"  {'last cell' if number == 0 else '':<11}  {line}".rstrip())
    for line in death.tail.splitlines()[-1:]:
        say(f"  last output  {line}")


def _last_number(event: Event) -> int:
    """Return the last complete number that an output event holds, 0 for none."""
    if event.kind != EventKind.OUTPUT or event.data.get("stream") != "stdout":
        return 0
    words = str(event.data["text"]).split()
    return int(words[-1]) if words and words[-1].isdecimal() and event.data["text"].endswith("\n") else 0


def _title(text: str) -> None:
    say()
    say(paint(text, "bold", sys.stdout))


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no such thing
        return os.cpu_count() or 1
