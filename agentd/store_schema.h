/* store_schema.h - opening the database: file system, lock, damage, migrations. */
#ifndef AGENTD_STORE_SCHEMA_H
#define AGENTD_STORE_SCHEMA_H

#include "agentd/db.h"
#include "agentd/store.h"

/* -ERR_UNSUPPORTED with a remedy when `dir` lies on a network file system. */
NODISCARD int schema_check_fs(const char *dir, struct err *err);
/* Opens, checks, migrates. Damage moves the file aside; *damage then gets a sentence. */
NODISCARD int schema_open(struct db **out, const struct store_opts *o, struct buf *damage,
                          struct err *err);

#endif
