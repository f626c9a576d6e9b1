// A disk that is slow, fails, hangs or is full when a test says so: preloaded (LD_PRELOAD), it stands in for what the C
// library offers to read, to write and to sync, and does as asked for the regular files below one folder. Every other descriptor, a
// socket, a pipe, a file elsewhere, goes straight to the real function.
//
// A program meets it wherever it calls the C library's functions across a shared library's border, which Rust's standard
// library and a SQLite linked into a Rust program both do. What it does not see: memory mapped files (such as SQLite's
// WAL index), direct system calls, and the C library's own buffered files (FILE *), whose writes do not leave the library.
//
// tests/it/support/disk.rs is the other side of `struct control`, and says what each field means.

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

// Each `…64` below is the same function under its other name, which holds only where there is one size of offset.
_Static_assert(sizeof(off_t) == 8, "this needs a system with 64 bits");

struct control {
    _Atomic uint64_t syncs_begun;
    _Atomic uint64_t syncs;
    _Atomic uint64_t sync_delay_ms;
    _Atomic uint64_t syncs_fail_from;
    _Atomic uint64_t syncs_hang;
    _Atomic uint64_t writes_fail_with;
    _Atomic uint64_t room;
    _Atomic uint64_t full_with;
    _Atomic uint64_t read_delay_ms;
};

static struct control *control;
static char folder[PATH_MAX];
static size_t folder_length;

// The function that this one stands in for. Looked up on first use, because other libraries write before our constructor
// has run; threads that look it up at once find the same.
#define REAL(name)                                                       \
    ({                                                                   \
        static __typeof__(name) *_Atomic real;                           \
        if (!real)                                                       \
            real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);          \
        real;                                                            \
    })

// A test whose faults never happen would pass: without its control the program must not run.
__attribute__((constructor)) static void start(void) {
    const char *path = getenv("TEST_DISK_CONTROL");
    const char *below = getenv("TEST_DISK_FOLDER");
    if (!path || !below || strlen(below) >= sizeof folder) {
        fprintf(stderr, "disk.c: TEST_DISK_CONTROL or TEST_DISK_FOLDER is missing\n");
        abort();
    }
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) {
        perror(path);
        abort();
    }
    close(fd);
    strcpy(folder, below);
    folder_length = strlen(folder);
    control = mapped;
}

// Whether it is a regular file below the folder, deleted ones included. Asked on each call: a descriptor's number is
// reused too soon for a memory of it to be safe.
static int is_ours(int fd, struct stat *file) {
    char link[64], path[PATH_MAX + 32];
    if (!control || fstat(fd, file) != 0 || !S_ISREG(file->st_mode))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    return length > (ssize_t)folder_length && memcmp(path, folder, folder_length) == 0 && path[folder_length] == '/';
}

static void sleep_ms(uint64_t ms) {
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

// Takes as long as asked. The errno it fails with, or 0.
static int sync_fault(uint64_t number) {
    sleep_ms(control->sync_delay_ms);
    while (control->syncs_hang)
        sleep_ms(1);
    uint64_t from = control->syncs_fail_from;
    return from != 0 && number >= from ? EIO : 0;
}

// A failed sync is not passed on, and not retried by anybody: what was written stays unsynced.
#define SYNC(fd, call)                                                   \
    struct stat file;                                                    \
    if (!is_ours(fd, &file))                                             \
        return call;                                                     \
    int fault = sync_fault(++control->syncs_begun);                      \
    if (fault) {                                                         \
        errno = fault;                                                   \
        return -1;                                                       \
    }                                                                    \
    int result = call;                                                   \
    if (result == 0)                                                     \
        control->syncs++;                                                \
    return result;

int fsync(int fd) { SYNC(fd, REAL(fsync)(fd)) }

int fdatasync(int fd) { SYNC(fd, REAL(fdatasync)(fd)) }

// It makes nothing durable, metadata and the disk's cache are left out, so it suffers like a sync but never counts as one.
int sync_file_range(int fd, off_t offset, off_t length, unsigned flags) {
    struct stat file;
    int fault = is_ours(fd, &file) ? sync_fault(control->syncs_begun + 1) : 0;
    if (fault) {
        errno = fault;
        return -1;
    }
    return REAL(sync_file_range)(fd, offset, length, flags);
}

// The bytes of all files in a folder and those below. It closes the descriptor.
static uint64_t used_in(int fd) {
    uint64_t used = 0;
    DIR *entries = fdopendir(fd);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        struct stat file;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (fstatat(fd, entry->d_name, &file, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        if (S_ISREG(file.st_mode))
            used += file.st_size;
        else if (S_ISDIR(file.st_mode))
            used += used_in(openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    }
    if (entries)
        closedir(entries);
    return used;
}

// The errno with which a write that ends at this offset fails, or 0. Two threads that write at once may both be given the
// last room; a full disk need not be exact to the byte.
static int write_fault(off_t end, const struct stat *file) {
    if (control->writes_fail_with)
        return control->writes_fail_with;
    if (control->room == 0 || end <= file->st_size)
        return 0;
    uint64_t used = used_in(open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return used + (end - file->st_size) > control->room ? (int)control->full_with : 0;
}

// Where a write without an offset begins.
static off_t position(int fd, const struct stat *file) {
    return fcntl(fd, F_GETFL) & O_APPEND ? file->st_size : lseek(fd, 0, SEEK_CUR);
}

static off_t total(const struct iovec *parts, int count) {
    off_t length = 0;
    for (int at = 0; at < count; at++)
        length += parts[at].iov_len;
    return length;
}

// Asked first whether reads are slow at all: every socket is read through here too.
#define READ(fd, call)                                                   \
    struct stat file;                                                    \
    if (control && control->read_delay_ms && is_ours(fd, &file))         \
        sleep_ms(control->read_delay_ms);                                \
    return call;

ssize_t read(int fd, void *data, size_t length) { READ(fd, REAL(read)(fd, data, length)) }

ssize_t pread(int fd, void *data, size_t length, off_t offset) { READ(fd, REAL(pread)(fd, data, length, offset)) }

#define WRITE(fd, offset, length, call)                                  \
    struct stat file;                                                    \
    int ours = is_ours(fd, &file);                                       \
    int fault = ours ? write_fault((offset) + (off_t)(length), &file) : 0; \
    if (fault) {                                                         \
        errno = fault;                                                   \
        return -1;                                                       \
    }                                                                    \
    return call;

ssize_t write(int fd, const void *data, size_t length) {
    WRITE(fd, position(fd, &file), length, REAL(write)(fd, data, length))
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    WRITE(fd, offset, length, REAL(pwrite)(fd, data, length, offset))
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    WRITE(fd, position(fd, &file), total(parts, count), REAL(writev)(fd, parts, count))
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    WRITE(fd, offset, total(parts, count), REAL(pwritev)(fd, parts, count, offset))
}

// To shorten a file needs no room and is how room is given back; it never fails here.
int ftruncate(int fd, off_t length) {
    struct stat file;
    int grows = is_ours(fd, &file) && length > file.st_size;
    int fault = grows ? write_fault(length, &file) : 0;
    if (fault) {
        errno = fault;
        return -1;
    }
    return REAL(ftruncate)(fd, length);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    WRITE(fd, offset, length, REAL(fallocate)(fd, mode, offset, length))
}

// It alone returns its errno.
int posix_fallocate(int fd, off_t offset, off_t length) {
    struct stat file;
    int fault = is_ours(fd, &file) ? write_fault(offset + length, &file) : 0;
    return fault ? fault : REAL(posix_fallocate)(fd, offset, length);
}

// To copy inside the kernel would pass by the room: onto our disk it is not offered, and the caller has to read and write.
#define NOT_OFFERED(fd, call)                                            \
    struct stat file;                                                    \
    if (!is_ours(fd, &file))                                             \
        return call;                                                     \
    errno = ENOSYS;                                                      \
    return -1;

ssize_t copy_file_range(int from, off_t *at, int to, off_t *offset, size_t length, unsigned flags) {
    NOT_OFFERED(to, REAL(copy_file_range)(from, at, to, offset, length, flags))
}

ssize_t sendfile(int to, int from, off_t *at, size_t length) { NOT_OFFERED(to, REAL(sendfile)(to, from, at, length)) }

ssize_t splice(int from, off_t *at, int to, off_t *offset, size_t length, unsigned flags) {
    NOT_OFFERED(to, REAL(splice)(from, at, to, offset, length, flags))
}

#define ALSO(result, other, name, ...) result other(__VA_ARGS__) __attribute__((alias(#name)));
ALSO(ssize_t, pread64, pread, int, void *, size_t, off64_t)
ALSO(ssize_t, pwrite64, pwrite, int, const void *, size_t, off64_t)
ALSO(ssize_t, pwritev64, pwritev, int, const struct iovec *, int, off64_t)
ALSO(int, ftruncate64, ftruncate, int, off64_t)
ALSO(int, fallocate64, fallocate, int, int, off64_t, off64_t)
ALSO(int, posix_fallocate64, posix_fallocate, int, off64_t, off64_t)
ALSO(ssize_t, sendfile64, sendfile, int, int, off64_t *, size_t)
