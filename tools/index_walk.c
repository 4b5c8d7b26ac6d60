/* index_walk.c - walking a folder and reading what lies there. */
#include "tools/index_walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"
#include "tools/html.h"
#include "tools/pdf.h"

enum { DEPTH_MAX = 40 };

static int add_file(struct walk_list *l, const char *path, const struct stat *st,
                    struct err *err)
{
    if (l->n == LIMIT_INDEX_DOCS)
        return err_set(err, ERR_LIMIT, "more than %d files; add folders below it one by one",
                       LIMIT_INDEX_DOCS);
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 256;
        struct walk_file *more = mem_resize(l->file, cap, sizeof *more);
        if (!more)
            return err_nomem(err);
        l->file = more;
        l->cap = cap;
    }
    struct walk_file *f = &l->file[l->n];
    *f = (struct walk_file){mem_strdup(str_c(path)),
                            st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
                            (uint64_t)st->st_size};
    if (!f->path)
        return err_nomem(err);
    l->n++;
    if (f->size <= LIMIT_PAGE_BYTES) /* others are not read */
        l->bytes += f->size;
    return 0;
}

/* Takes fd. */
static int list_dir(struct walk_list *l, int fd, const char *prefix, unsigned depth,
                    struct err *err)
{
    int rc = 0;
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return err_sys(err, "read folder '%s'", prefix);
    }
    for (struct dirent *e; rc == 0 && (e = readdir(d));) {
        char path[PATH_MAX];
        struct stat st;
        if (e->d_name[0] == '.' ||
            snprintf(path, sizeof path, "%s%s", prefix, e->d_name) >= (int)sizeof path - 1 ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISREG(st.st_mode)) {
            rc = add_file(l, path, &st, err);
        } else if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
            int sub = openat(dirfd(d), e->d_name,
                             O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            size_t n = strlen(path);
            memcpy(path + n, "/", 2);
            if (sub >= 0)
                rc = list_dir(l, sub, path, depth + 1, err);
        }
    }
    closedir(d);
    return rc;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct walk_file *)a)->path, ((const struct walk_file *)b)->path);
}

int walk_list_make(struct walk_list *l, const char *folder, struct err *err)
{
    *l = (struct walk_list){0};
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(err, "open folder '%s'", folder);
    int rc = list_dir(l, fd, "", 0, err);
    if (rc < 0)
        walk_list_done(l);
    else if (l->n)
        qsort(l->file, l->n, sizeof l->file[0], by_path);
    return rc;
}

void walk_list_done(struct walk_list *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        mem_free(l->file[i].path);
    mem_free(l->file);
    *l = (struct walk_list){0};
}

int walk_read(const char *folder, const char *path, struct str url, struct page **out,
              struct err *err)
{
    char full[PATH_MAX];
    struct buf data;
    struct str type = {0};
    if (snprintf(full, sizeof full, "%s/%s", folder, path) >= (int)sizeof full)
        return err_set(err, ERR_LIMIT, "the path is too long");
    int fd = open(full, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, ERR_UNSUPPORTED, "'%s' cannot be opened", full);
    buf_init(&data, LIMIT_PAGE_BYTES);
    int rc = io_read_all(fd, &data, err);
    close(fd);
    if (rc == 0 && str_starts(buf_view(&data), STR("%PDF-"))) {
        struct buf text;
        buf_init(&text, LIMIT_PAGE_BYTES);
        type = STR("text/plain; charset=utf-8");
        rc = pdf_text(buf_view(&data), &text, err);
        buf_done(&data);
        data = text;
    }
    if (rc == 0)
        rc = html_page(out, url, type, buf_view(&data), false, false, err);
    buf_done(&data);
    return rc;
}
