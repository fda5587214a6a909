"""Becomes a server that cannot outlive the process which asked for it.

    python -I -S embedded_guard.py LIFELINE_FD PROGRAM [ARGUMENT ...]

LIFELINE_FD is the read end of a pipe whose write end only the asking process holds. The program takes this
process's place, so its pid is the one the caller knows; a small child watches the pipe and kills the program
when the pipe closes, which the kernel does however the caller ends.

Linux's PR_SET_PDEATHSIG was not used: it fires when the starting *thread* ends, and macOS has none.
"""

import os
import select
import signal
import sys

_LOOK_AGAIN_S = 1.0


def main(arguments: list[str]) -> int:
    """Fork the watcher, then turn into the program.

    Returns:
        127, the shell's code, if the program cannot be run; otherwise it does not return.
    """
    lifeline, command = int(arguments[0]), arguments[1:]
    program = os.getpid()
    if os.fork() == 0:
        _watch(program, lifeline)
        os._exit(0)
    os.set_inheritable(lifeline, False)
    try:
        os.execv(command[0], command)  # noqa: S606 - a list, no shell
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127


def _watch(program: int, lifeline: int) -> None:
    # The program's log file is its lock (`infra.embedded_part`): a watcher that kept it open would hold
    # the lock a moment longer than the program lives.
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    # The program is the parent: once it has ended, this process has another one, so the pid killed below
    # is never somebody else's.
    while os.getppid() == program:
        closed, _, _ = select.select([lifeline], [], [], _LOOK_AGAIN_S)
        if closed:
            if os.getppid() == program:
                os.kill(program, signal.SIGKILL)
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
