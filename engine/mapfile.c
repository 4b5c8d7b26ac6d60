/* mapfile.c - open, fstat, mmap, close: the descriptor is not needed afterwards. */
#include "engine/mapfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"

static int map(struct mapfile *m, int fd, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(err, "stat '%s'", m->path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_UNSUPPORTED, "'%s' is not a regular file", m->path);
    m->n = (uint64_t)st.st_size;
    if (m->n == 0)
        return 0;
    void *p = mmap(NULL, (size_t)m->n, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return err_sys(err, "map '%s'", m->path);
    m->p = p;
    return 0;
}

int mapfile_open(struct mapfile *m, const char *path, struct err *err)
{
    *m = (struct mapfile){.path = mem_strdup(str_c(path))};
    if (!m->path)
        return err_nomem(err);
    /* Non-blocking, because a FIFO under this name must be refused, not waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc = fd < 0 ? err_sys(err, "open '%s'", path) : map(m, fd, err);
    io_close(&fd);
    if (rc < 0)
        mapfile_close(m);
    return rc;
}

void mapfile_close(struct mapfile *m)
{
    if (m->p)
        munmap((void *)(uintptr_t)m->p, (size_t)m->n);
    mem_free(m->path);
    *m = (struct mapfile){0};
}
