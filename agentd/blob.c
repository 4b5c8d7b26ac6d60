/* blob.c - content-addressed files. */
#include "agentd/blob.h"

#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <unistd.h>

#include "base/io.h"

void blob_name(struct str data, char out[BLOB_NAME])
{
    unsigned char hash[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(hash, (const unsigned char *)data.p, data.n);
    sodium_bin2hex(out, BLOB_NAME, hash, sizeof hash);
}

static int path_of(const char *dir, struct str name, bool make, char out[PATH_MAX],
                   struct err *err)
{
    for (size_t i = 0; i < name.n; i++)
        if (!((name.p[i] >= '0' && name.p[i] <= '9') || (name.p[i] >= 'a' && name.p[i] <= 'f')))
            return err_set(err, ERR_CORRUPT, "a blob name holds other than hex digits");
    if (name.n != BLOB_NAME - 1)
        return err_set(err, ERR_CORRUPT, "a blob name has %zu digits, not %d", name.n,
                       BLOB_NAME - 1);
    int n = snprintf(out, PATH_MAX, "%s/%.2s", dir, name.p);
    if (n >= PATH_MAX - BLOB_NAME - 1)
        return err_set(err, ERR_LIMIT, "path '%s' is too long", dir);
    int rc = make ? io_make_dirs(out, 0700, err) : 0;
    snprintf(out + n, (size_t)(PATH_MAX - n), "/%.*s", STR_ARG(name));
    return rc;
}

int blob_put(const char *dir, struct str data, char name[BLOB_NAME], struct err *err)
{
    char path[PATH_MAX];
    blob_name(data, name);
    int rc = path_of(dir, str_c(name), true, path, err);
    if (rc < 0 || access(path, F_OK) == 0)
        return rc;
    return io_write_file(path, data, 0600, err);
}

int blob_get(const char *dir, struct str name, struct buf *out, struct err *err)
{
    char path[PATH_MAX], have[BLOB_NAME];
    int rc = path_of(dir, name, false, path, err);
    size_t before = out->len;
    if (rc == 0)
        rc = io_read_file(path, out, err);
    if (rc < 0)
        return rc;
    blob_name(str_sub(buf_view(out), before, SIZE_MAX), have);
    if (!str_is(name, have))
        return err_set(err, ERR_CORRUPT, "'%s' does not hold what its name says", path);
    return 0;
}

void blob_drop(const char *dir, struct str name)
{
    char path[PATH_MAX];
    struct err ignored;
    if (path_of(dir, name, false, path, &ignored) == 0)
        unlink(path);
}
