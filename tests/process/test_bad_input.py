"""Whatever a cell does, its kernel answers: a clear error or a documented effect, and the mesh goes on."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from served import reach
from waiting import wait_until

import pyrokernel as pk


@pytest.fixture(autouse=True)
def still_alive(mesh: pk.Mesh) -> object:
    """After each test all kernels answer, as the instances they were."""
    before = [kernel.instance for kernel in mesh[:]]
    yield
    after = mesh[:]
    assert {reply.result for reply in after.execute("1 + 1", timeout=30).values()} == {2}
    assert [kernel.instance for kernel in after] == before


def fails(kernel: pk.Kernel, source: str, ename: str) -> pk.Reply:
    reply = kernel.execute(source, check=False, timeout=60)
    assert reply.status == "error"
    assert reply.ename == ename, reply.traceback
    return reply


def test_a_syntax_error_shows_the_line(kernel: pk.Kernel) -> None:
    reply = fails(kernel, "x = 1\nif True print(2)", "SyntaxError")
    assert "if True print(2)" in reply.traceback
    assert "^" in reply.traceback


def test_incomplete_source_is_an_error(kernel: pk.Kernel) -> None:
    fails(kernel, "def f(", "SyntaxError")


def test_a_null_byte_is_an_error(kernel: pk.Kernel) -> None:
    reply = kernel.execute("x = '\0'", check=False)
    assert reply.ename in ("ValueError", "SyntaxError")
    assert "null" in reply.evalue


def test_ten_megabytes_of_source_run(kernel: pk.Kernel) -> None:
    source = "x = 0\n" + "x += 1\n" * 20 + "#" + "y" * (10 * 1024 * 1024) + "\nx"
    assert kernel.execute(source, timeout=60).result == 20


def test_surrogates_in_source_are_an_error(kernel: pk.Kernel) -> None:
    fails(kernel, "'\udcff'", "UnicodeEncodeError")


def test_surrogates_in_output_and_result_survive(kernel: pk.Kernel) -> None:
    reply = kernel.execute("print(chr(0xdcff)); chr(0xdcff)")
    assert reply.stdout == "\\udcff\n"
    assert reply.result == "\udcff"
    (event,) = [event for event in kernel.events(cell=reply.cell) if event.kind == "result"]
    assert "udcff" in event.data["text"]


def test_a_result_that_cannot_be_pickled_stays_and_says_so(kernel: pk.Kernel) -> None:
    reply = kernel.execute("(n for n in range(3))")
    assert reply.text.startswith("<generator")
    with pytest.raises(pk.ResultUnavailableError, match="generator"):
        _ = reply.result


def test_a_result_whose_class_is_unknown_here_says_so(kernel: pk.Kernel) -> None:
    kernel.execute("import sys, types\nm = types.ModuleType('only_there'); sys.modules['only_there'] = m\n"
                   "exec('class C: pass', m.__dict__)")  # fmt: skip
    with pytest.raises(pk.NotSerializableError, match="only_there"):
        _ = kernel.execute("m.C()").result


def test_a_repr_that_raises_is_an_error_of_the_cell(kernel: pk.Kernel) -> None:
    fails(kernel, "class C:\n    def __repr__(self): raise RuntimeError('no')\nC()", "RuntimeError")


def test_a_huge_repr_is_cut(kernel: pk.Kernel) -> None:
    reply = kernel.execute("class C:\n    def __repr__(self): return 'x' * 10**8\nC()", timeout=60)
    assert len(reply.text) < 2_000_000
    assert reply.truncated
    assert "100000000 characters" in reply.text


def test_a_huge_error_is_cut(kernel: pk.Kernel) -> None:
    reply = fails(kernel, "raise ValueError('x' * 10**8)", "ValueError")
    assert len(reply.evalue) + len(reply.traceback) < 2_000_000


def test_an_error_whose_text_raises_is_shown(kernel: pk.Kernel) -> None:
    fails(kernel, "class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E", "E")


def test_sys_exit_ends_the_cell_not_the_kernel(kernel: pk.Kernel) -> None:
    kernel.execute("kept = 1")
    fails(kernel, "import sys; sys.exit(3)", "SystemExit")
    assert kernel.execute("kept").result == 1


def test_endless_recursion_is_an_error(kernel: pk.Kernel) -> None:
    reply = fails(kernel, "def f(): return f()\nf()", "RecursionError")
    assert len(reply.traceback) < 100_000


def test_output_without_end_is_capped_with_a_gap() -> None:
    spec = pk.KernelSpec(name="flood", journal_bytes=1024 * 1024)
    with pk.local([spec]) as mesh:
        kernel = mesh["flood"]
        cell = kernel.submit("while True: print('x' * 1000)")
        wait_until(lambda: kernel.events()[0].kind == "gap", timeout=30)
        assert kernel.interrupt().outcome == "interrupted"
        reply = cell.reply(timeout=30, check=False)
        assert reply.truncated
        assert len(reply.stdout) < 4 * 1024 * 1024
        events = list(kernel.cell(cell.id).follow(timeout=30))
        assert events[0].kind == "gap"
        assert events[0].data["reason"]
        directory = Path(mesh.settings.state_dir)
        assert sum(file.stat().st_blocks * 512 for file in directory.rglob("*") if file.is_file()) < 64 * 1024 * 1024


def test_a_large_write_by_c_code_in_one_call_does_not_lock_up(kernel: pk.Kernel) -> None:
    kernel.execute("import ctypes; write = ctypes.PyDLL(None).write")
    reply = kernel.execute("write(1, b'x' * 300_000, 300_000)", timeout=30)
    assert reply.result == 300_000
    assert reply.stdout.count("x") == 300_000


def test_a_reply_larger_than_a_message_stays_and_says_so(kernel: pk.Kernel) -> None:
    reply = kernel.execute("big = bytes(1100 * 1024 * 1024); big", max_result_bytes=1 << 40, timeout=50)
    kernel.execute("del big; _ = __ = ___ = None")
    assert len(reply.text) < 2_000_000
    with pytest.raises(pk.ResultUnavailableError, match="pull"):
        _ = reply.result


def test_a_large_result_stays_unless_asked_for(kernel: pk.Kernel) -> None:
    reply = kernel.execute("bytes(65 * 1024 * 1024)")
    with pytest.raises(pk.ResultUnavailableError, match="pull"):
        _ = reply.result
    assert len(kernel.execute("bytes(65 * 1024 * 1024)", max_result_bytes=10**8).result) == 65 * 1024 * 1024


def test_a_pull_larger_than_a_message_arrives(kernel: pk.Kernel) -> None:
    kernel.execute("big = bytes(1100 * 1024 * 1024 - 1) + b'!'; None")
    big = kernel.pull("big")
    assert len(big) == 1100 * 1024 * 1024
    assert big.endswith(b"\0!")
    kernel.execute("del big")


def test_a_forked_child_ends_with_its_cell(kernel: pk.Kernel) -> None:
    reply = kernel.execute("import os\npid = os.fork()\nprint('child' if pid == 0 else 'parent', flush=True)\npid")
    child = reply.result
    assert "parent" in reply.stdout
    kernel.execute("os.waitpid(pid, 0)", timeout=20)
    assert not os.path.exists(f"/proc/{child}")


def test_a_forked_child_that_raises_does_not_answer_for_the_kernel(kernel: pk.Kernel) -> None:
    reply = kernel.execute("import os\npid = os.fork()\nif pid == 0: raise ValueError('child')\n'parent'")
    assert reply.result == "parent"
    assert kernel.execute("os.waitpid(pid, 0)[1] != 0", timeout=20).result is True


def test_a_child_that_c_code_forked_ends_with_its_cell(kernel: pk.Kernel) -> None:
    """It runs none of the hooks of `os.fork`."""
    kernel.execute("import ctypes\nparent = os.getpid()\nchild = ctypes.CDLL(None).fork()", check=False)
    assert kernel.execute("os.getpid() == parent", timeout=20).result is True
    assert kernel.execute("os.waitpid(child, 0)[0] == child", timeout=20).result is True


def test_garbage_on_its_socket_disturbs_nobody(mesh: pk.Mesh, kernel: pk.Kernel) -> None:
    (info,) = [info for info in mesh.ps() if info.name == "k0"]
    path = info.uri.partition("@./u:")[2]
    silent = [reach(path) for _ in range(200)]
    for sock in silent[:100]:
        sock.sendall(os.urandom(64))
    assert kernel.execute("6 * 7", timeout=20).result == 42
    for sock in silent:
        sock.close()


def test_half_a_request_on_a_work_connection_stops_nobody(kernel: pk.Kernel) -> None:
    from pyrokernel.client.calls import kernel_request

    connection = kernel.link.take("work")
    request = kernel_request("execute", "1", {})
    data = b"".join(bytes(part) for part in request.buffers)
    connection.send(data[: len(data) // 2])
    assert kernel.execute("6 * 7", timeout=20).result == 42
    connection.close()


def test_a_reader_that_does_not_read_stops_nobody(kernel: pk.Kernel) -> None:
    from pyrokernel.client.calls import kernel_request

    connection = kernel.link.take("work")
    request = kernel_request("execute", "bytes(30_000_000)", {"want": "value"})
    connection.send(list(request.buffers))
    assert kernel.execute("6 * 7", timeout=20).result == 42
    connection.close()


def test_a_name_that_cannot_be_pushed_is_refused(kernel: pk.Kernel) -> None:
    with pytest.raises(pk.SettingsError, match="identifier"):
        kernel.push({"not a name": 1})


def test_memory_is_limited_per_kernel() -> None:
    with pk.local([pk.KernelSpec(name="small", memory_bytes=300 * 1024 * 1024)]) as mesh:
        fails(mesh["small"], "x = bytearray(10**9)", "MemoryError")
        assert mesh["small"].execute("1").result == 1


def test_descriptors_are_limited_per_kernel() -> None:
    with pk.local([pk.KernelSpec(name="few", descriptors=64)]) as mesh:
        fails(mesh["few"], "files = [open('/dev/null') for _ in range(100)]", "OSError")
        assert mesh["few"].execute("1").result == 1


def test_an_idle_kernel_ends_when_it_was_told_to() -> None:
    with pk.local([pk.KernelSpec(name="brief", idle_stop=0.5)]) as mesh:
        mesh["brief"].execute("1")
        wait_until(lambda: not mesh.names, timeout=20)
        assert all(info.status == "dead" for info in mesh.ps())


def test_a_full_disk_stops_the_journal_not_the_work(places: dict[str, str], served_at: Any) -> None:
    if os.getuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = Path(places["state_dir"])
    disk.mkdir(mode=0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", str(disk)], check=False).returncode:
        pytest.skip("this sandbox does not allow mounts")
    try:
        with served_at(places, "-n", "1").connect() as mesh:
            kernel = mesh["k0"]
            reply = kernel.execute("for i in range(4000): print('x' * 1000)\n'done'", timeout=60)
            assert reply.result == "done"
            assert kernel.execute("1 + 1").result == 2
            assert kernel.describe()["journal_error"]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_state_directory_on_a_network_file_system_is_refused(places: dict[str, str]) -> None:
    from pyrokernel.host import places as host_places

    mounts = f"server:/home {Path(places['state_dir']).parent} nfs4 rw 0 0\n"
    with pytest.raises(pk.SettingsError, match="state_dir"):
        host_places.refuse_network_filesystem(Path(places["state_dir"]), "state_dir", mounts)


def test_a_kernel_in_use_is_not_idle() -> None:
    with pk.local([pk.KernelSpec(name="used", idle_stop=1.0)]) as mesh:
        kernel = mesh["used"]
        began = time.monotonic()
        while time.monotonic() - began < 2.5:
            kernel.push(x=1)
        assert kernel.execute("x").result == 1


def test_a_terminated_child_of_a_cell_ends_by_its_signal(kernel: pk.Kernel) -> None:
    source = (
        "import multiprocessing, time\n"
        "child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "child.start(); child.terminate(); child.join(); child.exitcode"
    )
    assert kernel.execute(source, timeout=30).result == -15


def test_an_id_that_is_none_is_refused(kernel: pk.Kernel) -> None:
    for cell in ("abc", "ab", "z" * 32):
        with pytest.raises(pk.SettingsError, match="32 hexadecimal"):
            kernel.execute("1", cell=cell)


def test_a_work_connection_takes_work_only(kernel: pk.Kernel) -> None:
    from pyrokernel.client.calls import kernel_request
    from pyrokernel.wire.fanout import Fanout

    connection = kernel.link.take("work")
    with Fanout() as fanout:
        fanout.send(connection, kernel_request("submit", "1"), None)
        (answer,) = fanout.answers(time.monotonic() + 10)
    connection.close()
    assert "work connection takes" in str(answer.error)


def test_reading_standard_input_to_its_end_is_not_an_error(kernel: pk.Kernel) -> None:
    cell = kernel.submit("import sys\n[line for line in sys.stdin]", stdin=True)
    answers = iter(["a", "b", None])
    for event in cell.follow(stdin=True, timeout=20):
        if event.kind == "input":
            kernel.answer_input(event.data["request"], next(answers))
    assert cell.reply(timeout=5).result == ["a\n", "b\n"]
