// Looks for a socket of a network family, and for rights, by every route that it knows, from inside a sandbox.
//
// Put in the daemon's place, so that the unit's sandbox is the one that is shipped and no copy of it.
// Where nothing stops it, it creates files, so it runs in a container only.
// Prints a line for each route, `had ROUTE` or `denied ROUTE: why`, then says READY and waits for its end.
// Each route is tried by a child of its own: a filter that kills its caller denies as well.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define OP_SOCKET 45 // IORING_OP_SOCKET, which older headers do not name

struct route {
    const char *name;
    // A descriptor, or -1 with errno.
    int (*take)(const struct route *);
    int family, type, protocol;
};

static int plain(const struct route *r) { return socket(r->family, r->type, r->protocol); }

static int pair(const struct route *r)
{
    int fds[2];
    return socketpair(r->family, r->type, r->protocol, fds) == 0 ? fds[0] : -1;
}

// Filters look at the low half of an argument, or at both: the kernel looks at 32 bits.
static int wide(const struct route *r)
{
    return (int)syscall(SYS_socket, (1UL << 32) | (unsigned long)r->family, r->type, r->protocol);
}

// The kernel opens it, and no filter of system calls sees that.
static int by_ring(const struct route *r)
{
    struct io_uring_params params = {0};
    int ring = (int)syscall(SYS_io_uring_setup, 4, &params);
    if (ring < 0)
        return -1;
    size_t size = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    char *sq = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *sqes = mmap(0, params.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE,
                                     MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    char *cq = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING);
    if (sq == MAP_FAILED || sqes == MAP_FAILED || cq == MAP_FAILED)
        return -1;
    memset(sqes, 0, sizeof *sqes);
    sqes->opcode = OP_SOCKET;
    sqes->fd = r->family;
    sqes->off = (unsigned long long)r->type;
    sqes->len = (unsigned)r->protocol;
    *(unsigned *)(sq + params.sq_off.array) = 0;
    *(volatile unsigned *)(sq + params.sq_off.tail) = 1;
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        return -1;
    int result = ((struct io_uring_cqe *)(cq + params.cq_off.cqes))->res;
    if (result < 0) {
        errno = -result;
        return -1;
    }
    return result;
}

// Even without sockets in it, a ring is more than the daemon needs.
static int ring_alone(const struct route *r)
{
    (void)r;
    struct io_uring_params params = {0};
    return (int)syscall(SYS_io_uring_setup, 4, &params);
}

#ifdef __x86_64__
// The same system call by its other two numbers.
static int by_x32(const struct route *r)
{
    return (int)syscall(0x40000000 | SYS_socket, r->family, r->type, r->protocol);
}

static int by_i386(const struct route *r)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(359L), "b"((long)r->family), "c"((long)r->type), "d"((long)r->protocol)
                     : "memory", "r8", "r9", "r10", "r11");
    if ((int)result < 0) {
        errno = -(int)result;
        return -1;
    }
    return (int)result;
}
#endif

static int in_new_user_namespace(const struct route *r)
{
    return unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 ? plain(r) : -1;
}

static int in_new_network_namespace(const struct route *r)
{
    return unshare(CLONE_NEWNET) == 0 ? plain(r) : -1;
}

// The network namespace of another process.
static int in_namespace_of_init(const struct route *r)
{
    int init = (int)syscall(SYS_pidfd_open, 1, 0);
    if (init < 0 || setns(init, CLONE_NEWNET) < 0)
        return -1;
    return plain(r);
}

// A socket that another process has: PID 1 holds all that it listens on.
static int from_init(const struct route *r)
{
    (void)r;
    int init = (int)syscall(SYS_pidfd_open, 1, 0);
    if (init < 0)
        return -1;
    for (int fd = 3; fd < 256; fd++) {
        int taken = (int)syscall(SYS_pidfd_getfd, init, fd, 0), family = 0;
        socklen_t size = sizeof family;
        if (taken < 0 && errno != EBADF)
            return -1;
        if (taken >= 0 && getsockopt(taken, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 &&
            (family == AF_INET || family == AF_INET6))
            return taken;
    }
    errno = ENOENT;
    return -1;
}

// With a structure, which a filter cannot look into.
static int by_clone3(const struct route *r)
{
    unsigned long long arguments[11] = {CLONE_NEWUSER | CLONE_NEWNET, 0, 0, 0, SIGCHLD};
    long child = syscall(SYS_clone3, arguments, sizeof arguments);
    if (child < 0)
        return -1;
    if (child == 0)
        _exit(plain(r) >= 0 ? 0 : errno);
    int status = 0;
    waitpid((pid_t)child, &status, 0);
    errno = WEXITSTATUS(status);
    return status == 0 ? 0 : -1;
}

// Not sockets, but ways to them, and to other things that a peer could want.

// These are called with arguments that cannot succeed, so that nothing happens where they are let through: what
// they fail with then is neither EPERM nor ENOSYS.
static int past_filter(long result)
{
    return result >= 0 || (errno != EPERM && errno != ENOSYS) ? 0 : -1;
}

static int bpf(const struct route *r) { (void)r; return past_filter(syscall(SYS_bpf, 0, NULL, 0)); }
static int perf(const struct route *r) { (void)r; return past_filter(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0)); }
static int keys(const struct route *r) { (void)r; return past_filter(syscall(SYS_keyctl, 0, 0, 0)); }
static int mounting(const struct route *r) { (void)r; return past_filter(mount(NULL, NULL, NULL, 0, NULL)); }
static int root_user(const struct route *r) { (void)r; return setuid(0); }
static int root_group(const struct route *r) { (void)r; return setgid(0); }
static int owner(const struct route *r) { (void)r; return past_filter(chown("", 0, 0)); }

static int writable_code(const struct route *r)
{
    (void)r;
    return mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}

static int shell(const struct route *r)
{
    (void)r;
    return execl("/bin/sh", "sh", "-c", "echo had exec /bin/sh", NULL);
}

static int writing(const struct route *r)
{
    return open(strchr(r->name, '/'), O_WRONLY | O_CREAT, 0600);
}

static int trace_init(const struct route *r)
{
    (void)r;
    // Attached to for as long as this child lives, and not stopped.
    return ptrace(PTRACE_SEIZE, 1, 0, 0) == 0 ? 0 : -1;
}

static const struct route ROUTES[] = {
    {"socket AF_INET stream", plain, AF_INET, SOCK_STREAM, 0},
    {"socket AF_INET dgram", plain, AF_INET, SOCK_DGRAM, 0},
    {"socket AF_INET raw", plain, AF_INET, SOCK_RAW, IPPROTO_ICMP},
    {"socket AF_INET6 stream", plain, AF_INET6, SOCK_STREAM, 0},
    {"socket AF_INET6 dgram", plain, AF_INET6, SOCK_DGRAM, 0},
    {"socket AF_INET6 raw", plain, AF_INET6, SOCK_RAW, IPPROTO_ICMPV6},
    {"socket AF_PACKET raw", plain, AF_PACKET, SOCK_RAW, 0},
    {"socket AF_PACKET dgram", plain, AF_PACKET, SOCK_DGRAM, 0},
    {"socket AF_NETLINK", plain, AF_NETLINK, SOCK_RAW, 0},
    {"socket AF_VSOCK", plain, AF_VSOCK, SOCK_STREAM, 0},
    {"socket AF_ALG", plain, AF_ALG, SOCK_SEQPACKET, 0},
    {"socket AF_BLUETOOTH", plain, AF_BLUETOOTH, SOCK_RAW, 0},
    {"socket AF_TIPC", plain, AF_TIPC, SOCK_STREAM, 0},
    {"socket AF_SMC", plain, 43, SOCK_STREAM, 0},
    {"socket AF_XDP", plain, AF_XDP, SOCK_RAW, 0},
    {"socket AF_INET icmp", plain, AF_INET, SOCK_DGRAM, IPPROTO_ICMP},
    {"socket AF_INET mptcp", plain, AF_INET, SOCK_STREAM, 262},
    {"socket AF_INET6 sctp", plain, AF_INET6, SOCK_STREAM, IPPROTO_SCTP},
    {"socketpair AF_INET", pair, AF_INET, SOCK_STREAM, 0},
    {"wide family AF_INET", wide, AF_INET, SOCK_STREAM, 0},
    {"io_uring", ring_alone, 0, 0, 0},
    {"IORING_OP_SOCKET AF_INET", by_ring, AF_INET, SOCK_STREAM, 0},
    {"IORING_OP_SOCKET AF_INET6", by_ring, AF_INET6, SOCK_STREAM, 0},
#ifdef __x86_64__
    {"x32 AF_INET", by_x32, AF_INET, SOCK_STREAM, 0},
    {"i386 AF_INET", by_i386, AF_INET, SOCK_STREAM, 0},
#endif
    {"new user namespace AF_INET", in_new_user_namespace, AF_INET, SOCK_STREAM, 0},
    {"new network namespace AF_INET", in_new_network_namespace, AF_INET, SOCK_STREAM, 0},
    {"init's namespace AF_INET", in_namespace_of_init, AF_INET, SOCK_STREAM, 0},
    {"init's sockets", from_init, 0, 0, 0},
    {"trace init", trace_init, 0, 0, 0},
    {"clone3 AF_INET", by_clone3, AF_INET, SOCK_STREAM, 0},
    {"bpf", bpf, 0, 0, 0},
    {"perf_event_open", perf, 0, 0, 0},
    {"keyctl", keys, 0, 0, 0},
    {"mount", mounting, 0, 0, 0},
    {"setuid 0", root_user, 0, 0, 0},
    {"setgid 0", root_group, 0, 0, 0},
    {"chown", owner, 0, 0, 0},
    {"memory to write and execute", writable_code, 0, 0, 0},
    {"exec /bin/sh", shell, 0, 0, 0},
    {"write /etc/echod/x", writing, 0, 0, 0},
    {"write /usr/x", writing, 0, 0, 0},
    {"write /var/lib/x", writing, 0, 0, 0},
    {"write /var/log/x", writing, 0, 0, 0},
    {"write /dev/x", writing, 0, 0, 0},
    {"write /root/x", writing, 0, 0, 0},
    {"write /run/x", writing, 0, 0, 0},
    // What it may have: without this one, nothing was proven.
    {"socket AF_UNIX", plain, AF_UNIX, SOCK_STREAM, 0},
};

static void try_route(const struct route *r)
{
    pid_t child = fork();
    if (child == 0) {
        int fd = r->take(r);
        if (fd >= 0)
            printf("had %s\n", r->name);
        else
            printf("denied %s: %s\n", r->name, strerror(errno));
        fflush(stdout);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        printf("denied %s: killed by signal %d\n", r->name, WTERMSIG(status));
    fflush(stdout);
}

static void say_ready(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    if (!path)
        exit(0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (path[0] == '@')
        address.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&address, size);
}

int main(void)
{
    if (access("/run/host/container-manager", F_OK) != 0) {
        fprintf(stderr, "this is no machine to be thrown away\n");
        return 1;
    }
    for (size_t n = 0; n < sizeof ROUTES / sizeof *ROUTES; n++)
        try_route(&ROUTES[n]);
    say_ready();
    poll(NULL, 0, -1);
}
