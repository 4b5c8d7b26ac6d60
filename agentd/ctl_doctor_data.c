/* ctl_doctor_data.c - `agentctl doctor` on the store and on a model; neither is changed. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "agentd/ctl_doctor.h"
#include "agentd/ctl_view.h"
#include "engine/model.h"

enum { ROOM_MB = 200 };

/* The nearest folder above `path` that exists, in place. */
static void to_existing(char *path)
{
    while (access(path, F_OK) < 0 && errno == ENOENT) {
        char *slash = strrchr(path, '/');
        if (!slash || slash == path) {
            snprintf(path, 2, "/");
            return;
        }
        *slash = '\0';
    }
}

static bool on_network(long type)
{
    static const long types[] = {0x6969 /* NFS */, 0xff534d42L /* CIFS */, 0xfe534d42L /* SMB2 */,
                                 0x65735546 /* FUSE */, 0x01021997 /* 9p */, 0x00c36400 /* ceph */};
    for (unsigned i = 0; i < ARRAY_LEN(types); i++)
        if (type == types[i])
            return true;
    return false;
}

bool doctor_look_at_store(struct doctor *d, const char *dir)
{
    char place[PATH_MAX] = "", at[PATH_MAX];
    const char *given = getenv("STATE_DIRECTORY"), *home = getenv("HOME");
    if (dir || given)
        snprintf(place, sizeof place, "%s", dir ? dir : given);
    else if (home)
        snprintf(place, sizeof place, "%s/.local/state/agentd", home);
    struct finding *f = doctor_note(d, "store", false);
    if (place[0] != '/' && !realpath(dir ? dir : ".", place)) {
        snprintf(f->text, sizeof f->text, "'%.200s': %s", dir ? dir : "", strerror(errno));
        snprintf(f->remedy, sizeof f->remedy, "give an absolute path with --state or store.dir");
        return false;
    }
    snprintf(at, sizeof at, "%s", place);
    to_existing(at);
    struct statfs fs;
    if (access(at, W_OK | X_OK) < 0 || statfs(at, &fs) < 0) {
        snprintf(f->text, sizeof f->text, "%.300s: %s", at, strerror(errno));
        snprintf(f->remedy, sizeof f->remedy, "let uid %d write there, or choose another place "
                                              "with --state or store.dir", (int)getuid());
        return false;
    }
    uint64_t free_mb = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize >> 20;
    bool network = on_network((long)fs.f_type);
    f->good = !network && free_mb >= ROOM_MB;
    snprintf(f->text, sizeof f->text, "%.300s%s, %llu MB free%s", place,
             strcmp(at, place) == 0 ? "" : " (will be made)", (unsigned long long)free_mb,
             network ? ", on a network or user-space file system" : "");
    if (network)
        snprintf(f->remedy, sizeof f->remedy,
                 "SQLite's locks are not safe there: choose a local disk with store.dir");
    else if (!f->good)
        snprintf(f->remedy, sizeof f->remedy, "free some space; %d MB is a good start", ROOM_MB);
    return !network;
}

/* A figure in kB of /proc/self/smaps_rollup. */
static long rollup_kb(const char *key)
{
    char line[256];
    long kb = -1;
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    while (f && kb < 0 && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            kb = strtol(line + strlen(key), NULL, 10);
    if (f)
        fclose(f);
    return kb;
}

void doctor_look_at_memory(struct doctor *d)
{
    enum { MB = 1 << 20, TRY = 32 };
    struct rlimit lock = {0};
    struct finding *f = doctor_note(d, "memory", false);
    char may[64] = "nothing";
    long before = rollup_kb("AnonHugePages:"), got = -1;
    void *p = mmap(NULL, TRY * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p != MAP_FAILED) {
        (void)madvise(p, TRY * MB, MADV_HUGEPAGE);
        memset(p, 1, TRY * MB);
        got = rollup_kb("AnonHugePages:");
        munmap(p, TRY * MB);
    }
    if (getrlimit(RLIMIT_MEMLOCK, &lock) == 0 && lock.rlim_cur == RLIM_INFINITY)
        snprintf(may, sizeof may, "everything");
    else if (lock.rlim_cur)
        snprintf(may, sizeof may, "%llu kB", (unsigned long long)lock.rlim_cur / 1024);
    f->good = before >= 0 && got > before;
    snprintf(f->text, sizeof f->text,
             "%ld of %d MB asked for came as huge pages; a process may pin %s (only a model "
             "larger than memory is pinned)",
             f->good ? (got - before) / 1024 : 0, TRY, may);
    if (!f->good)
        snprintf(f->remedy, sizeof f->remedy,
                 "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (long contexts "
                 "are read faster with them; all works without)");
}

void doctor_look_at_processor(struct doctor *d)
{
    const char *kernels = model_kernels();
    bool plain = strcmp(kernels, "ref") == 0 || strcmp(kernels, "exact") == 0;
    struct finding *f = doctor_note(d, "processor", !plain);
    snprintf(f->text, sizeof f->text, plain ? "matrices are multiplied in plain C (%s): right, and "
             "slow" : "matrices are multiplied with %s", kernels);
    if (plain)
        snprintf(f->remedy, sizeof f->remedy, "run a model on a processor with AVX2 or AVX-512 "
                 "VNNI, and without AGENTD_KERNEL");
}

bool doctor_look_at_model(struct doctor *d, const char *path)
{
    struct err err = {0};
    struct sysinfo si = {0};
    json_t *info = NULL;
    struct finding *f = doctor_note(d, "model", false);
    if (model_info(&info, path, false, NULL, NULL, &err) < 0) {
        snprintf(f->text, sizeof f->text, "%s", err.text);
        return false;
    }
    double bytes = (double)json_integer_value(
        json_object_get(json_object_get(info, "tensors"), "bytes"));
    double total = (double)json_integer_value(
        json_object_get(json_object_get(info, "parameters"), "total"));
    double memory = sysinfo(&si) == 0 ? (double)si.totalram * si.mem_unit : 0;
    f->good = bytes < memory;
    snprintf(f->text, sizeof f->text,
             "%.*s, %.*s: %.1f million parameters, %.0f MB of weights, %.0f MB of memory here",
             STR_ARG(view_field(info, "name")), STR_ARG(view_field(info, "arch")), total / 1e6,
             bytes / 1e6, memory / 1e6);
    if (!f->good)
        snprintf(f->remedy, sizeof f->remedy,
                 "experts that do not fit are read from disk as they are chosen, which is slow: "
                 "convert to a smaller type (agentctl model convert), or use --engine remote:URL");
    json_decref(info);
    return true;
}
