// LD_PRELOAD: the FAIL_AT-th fdatasync of the process fails with EIO, and so do none after it, as Linux does it: the
// next one would report success while the bytes are gone. The bytes of the failed one are dropped: zeros are written
// over everything that was written since the sync before.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int calls, last_fd;
static off_t last_at;
static size_t last_size;

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
    last_fd = fd; last_at = at; last_size = size;
    return real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }

int fdatasync(int fd) {
    static int (*real)(int);
    static ssize_t (*write_at)(int, const void *, size_t, off_t);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (!write_at) write_at = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
    const char *wanted = getenv("FAIL_AT");
    if (!wanted || ++calls != atoi(wanted)) return real(fd);
    if (fd == last_fd) {
        void *zeros = calloc(1, last_size);
        if (zeros && write_at(fd, zeros, last_size, last_at) < 0) abort();
        free(zeros);
    }
    errno = EIO;
    return -1;
}
