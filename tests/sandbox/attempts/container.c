/* What a hostile compiler would try where no namespace is between it and the others. Exit status as in attempt.c. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static int refused(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    return 1;
}

/* Every descriptor that is open, as a list: there is no /proc to read it from. */
static int descriptors(void) {
    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0) printf("%d ", fd);
    printf("\n");
    return 0;
}

/* Who it is, in all three ways. */
static int who(void) {
    uid_t real, effective, saved;
    gid_t groups[64];
    if (getresuid(&real, &effective, &saved) != 0) return 2;
    printf("%u %u %u %d\n", real, effective, saved, getgroups(64, groups));
    return 0;
}

/* A tree deeper than paths are long, and directories that not even their owner may enter. */
static int deep(const char *depth) {
    for (int at = 0; at < atoi(depth); at++)
        if (mkdir("d", 0700) != 0 || chdir("d") != 0) return refused("mkdir");
    if (mkdir("/out/closed", 0700) != 0) return refused("mkdir");
    int fd = open("/out/closed/file", O_WRONLY | O_CREAT, 0600);
    if (fd < 0 || fchmod(fd, 0) != 0) return refused("open");
    return chmod("/out/closed", 01000) == 0 ? 0 : refused("chmod");
}

/* Out of a changed root by changing it again, as root could. */
static int leave(void) {
    if (mkdir("/out/inner", 0755) != 0 || chroot("/out/inner") != 0) return refused("chroot");
    for (int up = 0; up < 64; up++)
        if (chdir("..") != 0) return refused("chdir");
    return chroot(".") == 0 ? 0 : refused("chroot");
}

/* Forks until it is stopped, and each of the children does; deaf to what can be ignored. */
static int storm(const char *seconds) {
    for (int number = 1; number < 32; number++) signal(number, SIG_IGN);
    if (write(1, "on\n", 3) != 3) return 2;
    alarm(0);
    for (long turn = 0; turn < atol(seconds) * 100000; turn++) {
        pid_t child = fork();
        if (child == 0) setsid();
        if (child < 0) usleep(100);
    }
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "", *arg = argc > 2 ? argv[2] : "";
#define TRY(name, call) if (strcmp(what, name) == 0) return (call)
    TRY("descriptors", descriptors());
    TRY("who", who());
    TRY("deep", deep(arg));
    TRY("leave", leave());
    TRY("storm", storm(arg));
    TRY("parent", kill(getppid(), SIGKILL) == 0 ? 0 : refused("kill"));
    TRY("signal", kill(atoi(arg), 0) == 0 ? 0 : refused("kill"));
    TRY("everybody", (kill(-1, SIGCONT), printf("still\n"), 0));
    TRY("slow", setpriority(PRIO_PROCESS, (id_t)atoi(arg), 19) == 0 ? 0 : refused("setpriority"));
    TRY("root", setresuid(0, 0, 0) == 0 ? 0 : refused("setresuid"));
    TRY("wait", (write(1, "on\n", 3), sleep((unsigned)atoi(arg)), 0));
    TRY("null", open("/dev/null", O_RDWR) >= 0 ? 0 : refused("open"));
    return 2;
}
