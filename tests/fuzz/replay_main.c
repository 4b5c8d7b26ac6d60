/*
 * replay_main.c - runs a fuzz target over files and folders given on the command line, so
 * that the corpus is a regression test where libFuzzer is not available.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned n_run;

static int replay(const char *path)
{
    struct err err = {0};
    struct buf b;
    buf_init(&b, 64u << 20);
    int rc = io_read_file(path, &b, &err);
    if (rc == 0) {
        LLVMFuzzerTestOneInput(b.data, b.len);
        n_run++;
    } else {
        fprintf(stderr, "%s\n", err.text);
    }
    buf_done(&b);
    return rc;
}

static int walk(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        fprintf(stderr, "no corpus at %s\n", path);
        return -1;
    }
    if (!S_ISDIR(st.st_mode))
        return replay(path);
    DIR *d = opendir(path);
    int rc = d ? 0 : -1;
    for (struct dirent *e; d && rc == 0 && (e = readdir(d));) {
        char child[4096];
        if (e->d_name[0] == '.')
            continue;
        snprintf(child, sizeof child, "%s/%s", path, e->d_name);
        rc = walk(child);
    }
    if (d)
        closedir(d);
    return rc;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (walk(argv[i]) < 0)
            return 1;
    printf("%u inputs replayed\n", n_run);
    return n_run ? 0 : 1;
}
