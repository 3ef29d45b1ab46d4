"""A pytest plugin: the package runs as on macOS. ``python -m pytest -p tests.portable.macos``.

The names are those that typeshed gives to Linux and not to macOS.
"""

from __future__ import annotations

import pytest

from tests.portable.platform import Platform

MACOS = Platform(
    "darwin",
    hidden={
        "os": """EFD_* GRND_* MFD_* O_DIRECT O_LARGEFILE O_NOATIME O_PATH O_RSYNC O_TMPFILE POSIX_FADV_* P_PIDFD
            RTLD_DEEPBIND RWF_* SCHED_BATCH SCHED_IDLE SCHED_RESET_ON_FORK SPLICE_* XATTR_* copy_file_range eventfd*
            fdatasync getrandom getresgid getresuid *xattr memfd_create pidfd_open pipe2 posix_fadvise posix_fallocate
            sched_getaffinity sched_getparam sched_getscheduler sched_rr_get_interval sched_set* setresgid setresuid
            splice waitid*""",
        "select": "EPOLL* POLLMSG POLLRDHUP epoll",
        "signal": """SIGCLD SIGPOLL SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT pidfd_send_signal sigtimedwait sigwaitinfo
            struct_siginfo""",
        "socket": """AF_ALG AF_CAN AF_NETLINK AF_PACKET AF_QIPCRTR AF_RDS AF_TIPC AF_VSOCK ALG_* CAN_* IPPROTO_MPTCP
            IPPROTO_UDPLITE IP_BIND_ADDRESS_NO_PORT IP_TRANSPARENT J1939_* MSG_CMSG_CLOEXEC MSG_CONFIRM MSG_ERRQUEUE
            MSG_FASTOPEN MSG_MORE NETLINK_* PACKET_* PF_* SCM_CREDENTIALS SOCK_CLOEXEC SOCK_NONBLOCK SOL_ALG SOL_CAN_*
            SOL_RDS SOL_TIPC SO_BINDTODEVICE SO_DOMAIN SO_INCOMING_CPU SO_MARK SO_PASSCRED SO_PASSSEC SO_PEERCRED
            SO_PEERSEC SO_PRIORITY SO_PROTOCOL TCP_CONGESTION TCP_CORK TCP_DEFER_ACCEPT TCP_INFO TCP_KEEPIDLE
            TCP_LINGER2 TCP_QUICKACK TCP_SYNCNT TCP_USER_TIMEOUT TCP_WINDOW_CLAMP TIPC_* UDPLITE_* VM*""",
        "time": "CLOCK_BOOTTIME CLOCK_TAI pthread_getcpuclockid",
    },
    skip_markers=("linux",),
)
MACOS.install()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(MACOS)
