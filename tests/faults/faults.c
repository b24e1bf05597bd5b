/* Loaded before all other libraries: counts what a process does to files in one folder, and lets it go wrong there.
 *
 * fault_plan(folder, kind, at) arms it: at the at-th operation (write, pwrite, fsync, rename, unlink, truncate, mmap is
 * not seen) on a file whose path begins with the folder, the process is killed before it (KILL) or after half of it
 * (TEAR), or the operation and all later writes fail for want of space (FULL) until fault_plan is called again.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { NONE, KILL, TEAR, FULL };

static char folder[PATH_MAX];
static volatile int kind;
static volatile long at;
static volatile long count;

void fault_plan(const char* of, int what, long when) {
    kind = NONE;
    count = 0;
    at = when;
    snprintf(folder, sizeof folder, "%s", of);
    kind = what;
}

long fault_count(void) { return count; }

static int inside(const char* path) {
    size_t n = strlen(folder);
    return n && strncmp(path, folder, n) == 0 && path[n] == '/';
}

static int watched(int fd) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return inside(path);
}

/* 1 where this operation is the one, or comes after it on a full disk. */
static int due(void) {
    long now = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    return kind == FULL ? now >= at : kind != NONE && now == at;
}

#define REAL(name, type) static type real; if (!real) real = (type)dlsym(RTLD_NEXT, name)
typedef ssize_t (*write_t)(int, const void*, size_t);
typedef ssize_t (*pwrite_t)(int, const void*, size_t, off_t);
typedef int (*fd_t)(int);
typedef int (*two_t)(const char*, const char*);
typedef int (*one_t)(const char*);
typedef int (*at_t)(int, const char*, int);
typedef int (*size_t_)(int, off_t);

ssize_t write(int fd, const void* data, size_t n) {
    REAL("write", write_t);
    if (watched(fd) && due()) {
        if (kind == FULL) { errno = ENOSPC; return -1; }
        if (kind == TEAR) real(fd, data, n / 2);
        kill(getpid(), SIGKILL);
    }
    return real(fd, data, n);
}

#define PWRITE(name)                                                        \
    ssize_t name(int fd, const void* data, size_t n, off_t offset) {        \
        REAL(#name, pwrite_t);                                              \
        if (watched(fd) && due()) {                                         \
            if (kind == FULL) { errno = ENOSPC; return -1; }                \
            if (kind == TEAR) real(fd, data, n / 2, offset);                \
            kill(getpid(), SIGKILL);                                        \
        }                                                                   \
        return real(fd, data, n, offset);                                   \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

/* A full disk still syncs, renames, removes and cuts. */
#define DIES(condition) if ((condition) && due() && kind != FULL) kill(getpid(), SIGKILL)

int fsync(int fd) { REAL("fsync", fd_t); DIES(watched(fd)); return real(fd); }
int fdatasync(int fd) { REAL("fdatasync", fd_t); DIES(watched(fd)); return real(fd); }
int rename(const char* a, const char* b) { REAL("rename", two_t); DIES(inside(a)); return real(a, b); }
int unlink(const char* a) { REAL("unlink", one_t); DIES(inside(a)); return real(a); }
int ftruncate(int fd, off_t n) { REAL("ftruncate", size_t_); DIES(watched(fd)); return real(fd, n); }
int ftruncate64(int fd, off_t n) { REAL("ftruncate64", size_t_); DIES(watched(fd)); return real(fd, n); }
