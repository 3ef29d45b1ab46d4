"""A pytest plugin: the package runs as on Windows. ``python -m pytest -p tests.portable.windows``.

The names are those that typeshed gives to Linux and not to Windows. AF_UNIX is on Windows, but not in its Python.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from tests.portable.platform import PACKAGE, Platform

CREATE_NEW_PROCESS_GROUP = 0x200


class Popen(subprocess.Popen[Any]):
    """Takes and refuses the arguments that it does on Windows, where a process is terminated by being killed."""

    def __init__(self, *arguments: Any, creationflags: int = 0, **options: Any) -> None:
        for name in ("pass_fds", "preexec_fn"):
            if options.get(name):
                raise ValueError(f"{name} is not supported on Windows platforms")
        options["start_new_session"] = creationflags == CREATE_NEW_PROCESS_GROUP
        super().__init__(*arguments, **options)

    def terminate(self) -> None:
        self.kill()


WINDOWS = Platform(
    "win32",
    hidden={
        "os": """CLD_* EFD_* EX_* F_* GRND_* MFD_* NGROUPS_MAX O_ACCMODE O_ASYNC O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC
            O_FSYNC O_LARGEFILE O_NDELAY O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH O_RSYNC O_SYNC O_TMPFILE
            POSIX_* PRIO_* P_ALL P_PGID P_PID P_PIDFD RTLD_* RWF_* SCHED_* SEEK_DATA SEEK_HOLE SPLICE_* ST_* WCONTINUED
            WCOREDUMP WEX* WIF* WNO* WSTOP* WTERMSIG WUNTRACED XATTR_* chown chroot confstr* copy_file_range ctermid
            environb eventfd* fchdir fchmod fchown fdatasync fork forkpty fpathconf fstatvfs fwalk get_blocking getegid
            getenvb geteuid getgid getgroup* getloadavg getpgid getpgrp getpriority getrandom getres* getsid getuid
            initgroups killpg lchown lockf login_tty major makedev memfd_create minor mkfifo mknod nice openpty
            pathconf* pidfd_open pipe2 posix_* pread* pwrite* readv register_at_fork sched_* sendfile set_blocking
            setegid seteuid setgid setgroups setpgid setpgrp setpriority setre* setsid setuid spawn*p spawn*pe splice
            statvfs sync sysconf* tcgetpgrp tcsetpgrp ttyname uname wait wait3 wait4 waitid* writev *xattr""",
        "select": "EPOLL* PIPE_BUF POLL* epoll poll",
        "signal": """ITIMER_* ItimerError SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGHUP SIGIO SIGIOT SIGKILL SIGPIPE
            SIGPOLL SIGPROF SIGPWR SIGQUIT SIGRT* SIGSTKFLT SIGSTOP SIGSYS SIGTRAP SIGTSTP SIGTT* SIGURG SIGUSR*
            SIGVTALRM SIGWINCH SIGX* SIG_BLOCK SIG_SETMASK SIG_UNBLOCK Sigmasks alarm getitimer pause pidfd_send_signal
            pthread_* setitimer siginterrupt sigpending sigtimedwait sigwait* struct_siginfo""",
        "socket": """AF_ALG AF_CAN AF_NETLINK AF_PACKET AF_QIPCRTR AF_RDS AF_TIPC AF_UNIX AF_VSOCK ALG_* CAN_* CMSG_*
            EAI_SYSTEM IPPROTO_MPTCP IPPROTO_UDPLITE IP_BIND_ADDRESS_NO_PORT IP_TRANSPARENT J1939_* MSG_CMSG_CLOEXEC
            MSG_CONFIRM MSG_DONTWAIT MSG_EOR MSG_FASTOPEN MSG_MORE MSG_NOSIGNAL NETLINK_* PACKET_* PF_* SCM_*
            SOCK_CLOEXEC SOCK_NONBLOCK SOL_ALG SOL_CAN_* SOL_RDS SOL_TIPC SO_BINDTODEVICE SO_DOMAIN SO_INCOMING_CPU
            SO_MARK SO_PASSCRED SO_PASSSEC SO_PEERCRED SO_PEERSEC SO_PRIORITY SO_PROTOCOL SO_REUSEPORT TCP_CONGESTION
            TCP_CORK TCP_DEFER_ACCEPT TCP_INFO TCP_LINGER2 TCP_NOTSENT_LOWAT TCP_QUICKACK TCP_SYNCNT TCP_USER_TIMEOUT
            TCP_WINDOW_CLAMP TIPC_* UDPLITE_* VM* recv_fds send_fds sethostname""",
        "time": "CLOCK_* clock_* pthread_getcpuclockid tzset",
    },
    absent="crypt curses fcntl grp posix pty pwd readline resource syslog termios tty",
    replacements={"subprocess": {"CREATE_NEW_PROCESS_GROUP": CREATE_NEW_PROCESS_GROUP, "Popen": Popen}},
    skip_markers=("linux", "posix"),
)
WINDOWS.install()

if sys.platform != "win32":
    _add_signal_handler = asyncio.SelectorEventLoop.add_signal_handler

    def add_signal_handler(self: Any, *arguments: Any) -> None:
        if str(sys._getframe(1).f_globals.get("__name__")).partition(".")[0] == PACKAGE:
            raise NotImplementedError
        _add_signal_handler(self, *arguments)

    asyncio.SelectorEventLoop.add_signal_handler = add_signal_handler  # type: ignore[assignment, method-assign]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(WINDOWS)
