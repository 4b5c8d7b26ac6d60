/*
 * sockets.h - Unix sockets of the host's services that lie where a cell can see them.
 * Namespaces do not stop a connection by path, so each is covered inside: those that are bound
 * when the cell is made before anything runs, later ones when the spawner next looks.
 */
#ifndef SANDBOX_SOCKETS_H
#define SANDBOX_SOCKETS_H

#include "base/buf.h"
#include "sandbox/plan.h"

enum { SOCKETS_MAX = 32 };

/* What is to be covered: places below the root inside, without a leading slash. */
struct sockets_found {
    char place[SOCKETS_MAX][SANDBOX_PATH_MAX];
    unsigned n;
};

/* What a cell shows of the host, and the sockets that were bound there at the last look. */
struct sockets {
    struct buf trees;   /* host path, place inside, each with its NUL */
    int workspace;      /* borrowed O_PATH: walked whole; -1 */
    int mounts;         /* the cell's mount namespace, owned; -1 before it is ready */
    uint64_t look;      /* of all sockets bound then */
    uint64_t covered[SOCKETS_MAX];
    unsigned n_covered;
};

NODISCARD int sockets_init(struct sockets *s, const struct plan *p, int workspace,
                           struct err *err);
void sockets_done(struct sockets *s);

/* What must be covered now and is not yet; nothing when no socket was bound since the last
 * look. -1 with errno ENOBUFS when there are too many. */
NODISCARD int sockets_find(struct sockets *s, struct sockets_found *found);

/* Inside, with the root that is being filled; -1 with errno. */
NODISCARD int sockets_cover(const struct sockets_found *found, int root);

/* Outside: finds and covers in a cell that is at work. -1 when it could not be done. */
NODISCARD int sockets_again(struct sockets *s);

#endif
