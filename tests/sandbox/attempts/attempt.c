/* One thing each that a hostile compiler would try. Exit status 0: it succeeded; 1: it was refused, with the reason on
 * standard output; 2: the attempt itself is broken. Linked statically, so that it runs in an empty root. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int refused(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    return 1;
}

static int read_file(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) return refused("open");
    char buffer[4096];
    ssize_t got;
    while ((got = read(fd, buffer, sizeof buffer)) > 0)
        if (write(1, buffer, (size_t)got) != got) return 2;
    return got < 0 ? refused("read") : 0;
}

static int write_file(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    if (fd < 0) return refused("open");
    return write(fd, "x", 1) == 1 ? 0 : refused("write");
}

/* Bytes that are looked for, written as hexadecimal digits: so nothing that names them holds them. */
static unsigned char wanted[64];
static size_t wanted_length, files_left = 20000;

static int holds_wanted(int dir, const char *name) {
    static char buffer[1 << 20];
    int fd = openat(dir, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return 0;
    size_t length = 0;
    ssize_t got;
    while (length < sizeof buffer && (got = read(fd, buffer + length, sizeof buffer - length)) > 0) length += (size_t)got;
    close(fd);
    return memmem(buffer, length, wanted, wanted_length) != NULL;
}

/* Whether a file below a directory, however it is named, holds what is wanted. Takes the descriptor. */
static int hunt_below(int dir, int depth) {
    DIR *listed = dir < 0 || depth > 32 ? NULL : fdopendir(dir);
    if (listed == NULL) return 0;
    int found = 0;
    struct dirent *entry;
    while (!found && files_left > 0 && (entry = readdir(listed)) != NULL) {
        struct stat stat;
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
        if (fstatat(dirfd(listed), name, &stat, AT_SYMLINK_NOFOLLOW) != 0) continue;
        files_left--;
        if (S_ISDIR(stat.st_mode)) found = hunt_below(openat(dirfd(listed), name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), depth + 1);
        if (S_ISREG(stat.st_mode)) found = holds_wanted(dirfd(listed), name);
        if (found) printf("%s\n", name);
    }
    closedir(listed);
    return found;
}

static int hunt(const char *hex, const char *path) {
    unsigned byte;
    for (; wanted_length < sizeof wanted && sscanf(hex + 2 * wanted_length, "%2x", &byte) == 1; wanted_length++)
        wanted[wanted_length] = (unsigned char)byte;
    if (wanted_length == 0) return 2;
    if (hunt_below(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), 0)) return 0;
    printf("nothing\n");
    return 1;
}

/* What a path is to any process that can be seen, by way of its root. */
static int read_by_others(const char *path) {
    DIR *processes = opendir("/proc");
    if (processes == NULL) return 2;
    int result = 1;
    struct dirent *entry;
    while ((entry = readdir(processes)) != NULL) {
        char name[4096];
        snprintf(name, sizeof name, "/proc/%s/root%s", entry->d_name, path);
        if (atoi(entry->d_name) > 0 && access(name, R_OK) == 0 && read_file(name) == 0) result = 0;
    }
    return result;
}

/* Memory that this machine's programs share, by its number. */
static int read_shared_memory(const char *key) {
    int id = shmget((key_t)atoi(key), 0, 0);
    if (id < 0) return refused("shmget");
    char *memory = shmat(id, NULL, SHM_RDONLY);
    if (memory == (void *)-1) return refused("shmat");
    printf("%s\n", memory);
    return 0;
}

/* Not attempts, but what a test needs beside them: shared memory that all may read, and its removal. */
static int share(const char *key, const char *hex) {
    int id = shmget((key_t)atoi(key), 4096, IPC_CREAT | IPC_EXCL | 0644);
    char *memory = id < 0 ? (void *)-1 : shmat(id, NULL, 0);
    if (memory == (void *)-1) return refused("shared memory");
    unsigned byte;
    for (size_t at = 0; at < 4000 && sscanf(hex + 2 * at, "%2x", &byte) == 1; at++) memory[at] = (char)byte;
    return 0;
}

static int unshare_memory(const char *key) {
    return shmctl(shmget((key_t)atoi(key), 0, 0), IPC_RMID, NULL) == 0 ? 0 : 1;
}

/* A program in a session of keys of its own, in which there is this one. */
static int with_key(char **argv) {
    if (syscall(SYS_keyctl, 1 /* join a new session */, NULL) < 0) return refused("session");
    if (syscall(SYS_add_key, "user", argv[0], argv[1], strlen(argv[1]), -3 /* the session's */) < 0)
        return refused("add_key");
    execv(argv[2], argv + 2);
    return refused("exec");
}

/* A key of the session that this process was started in. */
static int read_key(const char *name) {
    char text[256] = {0};
    long key = syscall(SYS_keyctl, 10 /* search */, -3 /* the session's */, "user", name, 0);
    if (key < 0) return refused("search");
    if (syscall(SYS_keyctl, 11 /* read */, key, text, sizeof text - 1) < 0) return refused("read");
    printf("%s\n", text);
    return 0;
}

static int read_name(void) {
    char name[256] = {0};
    if (gethostname(name, sizeof name - 1) != 0) return 2;
    printf("%s\n", name);
    return 0;
}

/* How many files can be open, of so many. */
static int open_many(const char *most) {
    int count = 0;
    while (count < atoi(most) && open("/dev/null", O_RDONLY) >= 0) count++;
    printf("%d\n", count);
    return 0;
}

/* How many files can be made, of so many. */
static int make_many(const char *most) {
    int count = 0;
    for (; count < atoi(most); count++) {
        char name[32];
        snprintf(name, sizeof name, "/tmp/%d", count);
        int fd = open(name, O_WRONLY | O_CREAT, 0600);
        if (fd < 0) break;
        close(fd);
    }
    printf("%d\n", count);
    return 0;
}

/* How many MiB a file can be made long, of so many; nothing is written. */
static int lengthen(const char *most) {
    signal(SIGXFSZ, SIG_IGN);
    int fd = open("/tmp/long", O_WRONLY | O_CREAT, 0600), count = 0;
    if (fd < 0) return 2;
    while (count < atoi(most) && ftruncate(fd, ((off_t)count + 1) << 20) == 0) count++;
    printf("%d\n", count);
    return 0;
}

static int connect_tcp(const char *port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) return refused("socket");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(fd, (struct sockaddr *)&to, sizeof to) == 0 ? 0 : refused("connect");
}

static int connect_abstract(const char *name) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) return refused("socket");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path + 1, name, sizeof to.sun_path - 2);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
    return connect(fd, (struct sockaddr *)&to, length) == 0 ? 0 : refused("connect");
}

static int trace(void) {
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    if (child < 0) return 2;
    int result = ptrace(PTRACE_ATTACH, child, 0, 0) == 0 ? 0 : refused("ptrace");
    kill(child, SIGKILL);
    return result;
}

/* Looks into the first process of its namespace, which runs code of the one who made the sandbox. */
static int look_into_init(void) {
    char target[4096];
    int result = 1;
    if (open("/proc/1/mem", O_RDWR) >= 0) result = 0;
    else refused("mem");
    if (readlink("/proc/1/root", target, sizeof target) >= 0) result = 0;
    else refused("root");
    if (opendir("/proc/1/fd") != NULL) result = 0;
    else refused("fd");
    if (kill(1, SIGKILL) == 0 && kill(1, 0) != 0) result = 0;
    return result;
}

static int mount_something(void) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return refused("unshare");
    return mount("none", "/tmp", "tmpfs", 0, NULL) == 0 ? 0 : refused("mount");
}

static int mount_directly(void) {
    return mount("none", "/tmp", "tmpfs", 0, NULL) == 0 ? 0 : refused("mount");
}

static int clone_namespace(void) {
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return child > 0 ? 0 : refused("clone");
}

static int make_device(const char *path) {
    if (mknod(path, S_IFCHR | 0666, makedev(1, 3)) != 0) return refused("mknod");
    return open(path, O_RDWR) >= 0 ? 0 : refused("open");
}

static int become_root(const char *program) {
    execl(program, "program", "is_root", (char *)NULL);
    return refused("exec");
}

/* How many children can be had, of so many. */
static int forks(const char *most) {
    int count = 0;
    for (; count < atoi(most); count++) {
        pid_t child = fork();
        if (child < 0) break;
        if (child == 0) {
            pause();
            _exit(0);
        }
    }
    printf("%d\n", count);
    fflush(stdout);
    kill(0, SIGTERM);
    return 0;
}

/* How many MiB can be written, of so many. */
static int fill(const char *path, const char *most) {
    static char block[1 << 20];
    int count = 0;
    char name[4096];
    for (; count < atoi(most); count++) {
        snprintf(name, sizeof name, "%s/%d", path, count / 64);
        int fd = open(name, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (fd < 0 || write(fd, block, sizeof block) != sizeof block) break;
        close(fd);
    }
    printf("%d\n", count);
    return 0;
}

/* How many MiB of memory can be had, of so many. */
static int eat(const char *most) {
    int count = 0;
    for (; count < atoi(most); count++) {
        void *block = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) break;
    }
    printf("%d\n", count);
    return 0;
}

/* The error of each of these system calls, with arguments that mean nothing. */
static int calls(int count, char **numbers) {
    for (int at = 0; at < count; at++) {
        errno = 0;
        syscall(atol(numbers[at]), -1, -1, -1, -1, -1, -1);
        printf("%s %d\n", numbers[at], errno);
    }
    return 0;
}

static int list(const char *path) {
    DIR *dir = opendir(path);
    if (dir == NULL) return refused("opendir");
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.') printf("%s\n", entry->d_name);
    return 0;
}

/* Stays: deaf to every signal that can be ignored, in a session of its own, twice. `marker` shows that it runs. */
static int stay(const char *marker) {
    for (int signal_number = 1; signal_number < 32; signal_number++) signal(signal_number, SIG_IGN);
    for (int copy = 0; copy < 2; copy++) {
        if (fork() == 0) {
            setsid();
            if (fork() == 0)
                for (;;) pause();
            _exit(0);
        }
    }
    if (write_file(marker) != 0) return 2;
    printf("staying\n");
    fflush(stdout);
    for (;;) pause();
}

/* Leaves three copies of itself behind and ends. */
static int daemonise(void) {
    for (int copy = 0; copy < 3; copy++) {
        if (fork() == 0) {
            setsid();
            if (fork() != 0) _exit(0);
            for (;;) pause();
        }
    }
    while (wait(NULL) > 0) continue;
    return 0;
}

/* Writes what is wanted where it may, and stays. */
static int hold(const char *hex, const char *marker) {
    unsigned byte;
    int fd = open("held", O_WRONLY | O_CREAT, 0644);
    if (fd < 0) return 2;
    for (size_t at = 0; sscanf(hex + 2 * at, "%2x", &byte) == 1; at++)
        if (write(fd, &(char){(char)byte}, 1) != 1) return 2;
    close(fd);
    return stay(marker);
}

static int print(const char *mebibytes) {
    static char block[1 << 20];
    memset(block, 'x', sizeof block);
    for (int count = 0; count < atoi(mebibytes); count++)
        if (write(1, block, sizeof block) < 0) return refused("write");
    return 0;
}

static int terminal(void) {
    struct winsize size = {0};
    printf("%d %d %d %d\n", isatty(0), isatty(1), isatty(2), ioctl(2, TIOCGWINSZ, &size) == 0 ? size.ws_col : -1);
    fflush(stdout);
    return write(2, "a\nb\n", 4) == 4 ? 0 : 2;
}

static int alternate(void) {
    for (int turn = 0; turn < 3; turn++)
        if (write(1, "o", 1) != 1 || write(2, "e", 1) != 1) return 2;
    return 0;
}

static int odd_output(const char *kind) {
    if (strcmp(kind, "link") == 0) return symlink("/etc/passwd", "x.o");
    if (strcmp(kind, "pipe") == 0) return mkfifo("x.o", 0600);
    if (strcmp(kind, "directory") == 0) return mkdir("x.o", 0700);
    if (strcmp(kind, "setuid") == 0) return write_file("x.o") || chmod("x.o", 04755);
    if (strcmp(kind, "many") == 0) {
        char name[16];
        for (int count = 0; count < 100; count++) {
            snprintf(name, sizeof name, "%d", count);
            if (write_file(name) != 0) return 2;
        }
        return 0;
    }
    if (strcmp(kind, "hard_link") == 0) return link("placed", "x.o");
    if (strcmp(kind, "device") == 0) return mknod("x.o", S_IFCHR | 0666, makedev(1, 3));
    if (strcmp(kind, "setgid") == 0) return write_file("x.o") || chmod("x.o", 02755);
    if (strcmp(kind, "sparse") == 0) return write_file("x.o") || truncate("x.o", 1L << 40);
    if (strcmp(kind, "huge") == 0) return write_file("x.o") || truncate("x.o", 1L << 30);
    if (strcmp(kind, "swap") == 0) return rmdir("sub") || symlink("/etc", "sub");
    if (strcmp(kind, "below") == 0) return write_file("sub/x.o");
    if (strcmp(kind, "remove") == 0) return unlink("placed");
    if (strcmp(kind, "removed_own") == 0) return write_file("own") || unlink("own");
    if (strcmp(kind, "change") == 0) return write_file("placed");
    if (strcmp(kind, "touch") == 0) return utimensat(AT_FDCWD, "placed", NULL, 0);
    if (strcmp(kind, "open") == 0) return open("placed", O_RDWR) < 0;
    if (strcmp(kind, "disguise") == 0) {
        struct stat before;
        if (stat("placed", &before) != 0 || write_file("placed") != 0) return 2;
        struct timespec times[2] = {before.st_atim, before.st_mtim};
        return utimensat(AT_FDCWD, "placed", times, 0);
    }
    if (strcmp(kind, "temporary") == 0) return write_file("/tmp/left") || write_file("x.o");
    if (strcmp(kind, "program") == 0) return write_file("x.o") || chmod("x.o", 0755);
    return 2;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "", *arg = argc > 2 ? argv[2] : "", *more = argc > 3 ? argv[3] : "";
#define TRY(name, call) if (strcmp(what, name) == 0) return (call)
    TRY("read", read_file(arg));
    TRY("write", write_file(arg));
    TRY("hunt", hunt(arg, more));
    TRY("others", read_by_others(arg));
    TRY("shared_memory", read_shared_memory(arg));
    TRY("key", read_key(arg));
    TRY("share", share(arg, more));
    TRY("unshare_memory", unshare_memory(arg));
    if (strcmp(what, "with_key") == 0 && argc > 4) return with_key(argv + 2);
    TRY("open_many", open_many(arg));
    TRY("make_many", make_many(arg));
    TRY("lengthen", lengthen(arg));
    TRY("chroot", chroot("/tmp") == 0 ? 0 : refused("chroot"));
    TRY("name", read_name());
    TRY("tcp", connect_tcp(arg));
    TRY("abstract", connect_abstract(arg));
    TRY("ptrace", trace());
    TRY("init", look_into_init());
    TRY("kill", kill(atoi(arg), SIGKILL) == 0 ? 0 : refused("kill"));
    TRY("mount", mount_something());
    TRY("mount_directly", mount_directly());
    TRY("clone", clone_namespace());
    TRY("device", make_device(arg));
    TRY("setuid", become_root(arg));
    TRY("is_root", geteuid() == 0 ? 0 : 1);
    TRY("forks", forks(arg));
    TRY("fill", fill(arg, more));
    TRY("eat", eat(arg));
    TRY("calls", calls(argc - 2, argv + 2));
    TRY("list", list(arg));
    TRY("stay", stay(arg));
    TRY("hold", hold(arg, more));
    TRY("daemonise", daemonise());
    TRY("print", print(arg));
    TRY("terminal", terminal());
    TRY("alternate", alternate());
    TRY("odd", odd_output(arg));
    TRY("umask", (printf("%o\n", umask(0)), 0));
    TRY("environment", (printf("%s\n", environ[0] ? environ[0] : "none"), 0));
#if defined(__x86_64__)
    if (strcmp(what, "int80") == 0) {
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory");
        return result > 0 ? 0 : 1;
    }
#endif
    return 2;
}
