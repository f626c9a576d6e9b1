// What tests/it/support/tests/disk.rs tries the preloaded disk on: `writer FILE…` reads lines `N FUNCTION`, calls the function
// on the N-th file (0 is a socket), and answers each with `ok` or the errno's name.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static int call(int fd, const char *function) {
    static const char data[] = "a record";
    struct iovec parts[] = {{(void *)data, 4}, {(void *)data, 4}};
    char read_data[8];
    off_t end = lseek(fd, 0, SEEK_END);
#define CASE(name, call)                                                 \
    if (strcmp(function, #name) == 0)                                    \
        return (call) < 0 ? errno : 0;
    CASE(write, write(fd, data, 8))
    CASE(pwrite, pwrite(fd, data, 8, end))
    CASE(pwrite64, pwrite64(fd, data, 8, end))
    CASE(writev, writev(fd, parts, 2))
    CASE(pwritev, pwritev(fd, parts, 2, end))
    CASE(pwritev64, pwritev64(fd, parts, 2, end))
    CASE(ftruncate, ftruncate(fd, end + 8))
    CASE(ftruncate64, ftruncate64(fd, end + 8))
    CASE(fallocate, fallocate(fd, 0, end, 8))
    CASE(fallocate64, fallocate64(fd, 0, end, 8))
    CASE(read, (lseek(fd, 0, SEEK_SET), read(fd, read_data, 8)))
    CASE(pread, pread(fd, read_data, 8, 0))
    CASE(pread64, pread64(fd, read_data, 8, 0))
    CASE(fsync, fsync(fd))
    CASE(fdatasync, fdatasync(fd))
    CASE(sync_file_range, sync_file_range(fd, 0, 8, SYNC_FILE_RANGE_WRITE))
    CASE(shorten, ftruncate(fd, 0))
    CASE(overwrite, pwrite(fd, data, 8, 0))
    CASE(allocate_1_MiB, fallocate(fd, 0, 0, 1 << 20))
#undef CASE
    if (strcmp(function, "posix_fallocate") == 0)
        return posix_fallocate(fd, end, 8);
    if (strcmp(function, "posix_fallocate64") == 0)
        return posix_fallocate64(fd, end, 8);
    return ENOSYS;
}

int main(int count, char **files) {
    int fds[16] = {0}, pair[2], number;
    char function[64];
    if (count > 16 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return 1;
    fds[0] = pair[0];
    for (int at = 1; at < count; at++)
        if ((fds[at] = open(files[at], O_RDWR | O_CREAT, 0600)) < 0)
            return perror(files[at]), 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (scanf("%d %63s", &number, function) == 2) {
        int error = number >= 0 && number < count ? call(fds[number], function) : EBADF;
        puts(error ? strerrorname_np(error) : "ok");
    }
    return 0;
}
