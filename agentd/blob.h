/* blob.h - large pieces of data in files named by their SHA-256, written once, never
 * changed: DIR/ab/abcdef.... The only file that speaks to libsodium is blob.c. */
#ifndef AGENTD_BLOB_H
#define AGENTD_BLOB_H

#include "base/buf.h"

enum { BLOB_NAME = 65 }; /* 64 hex digits and the NUL */

void blob_name(struct str data, char out[BLOB_NAME]);
/* Writes (or finds) the file; durable on return. */
NODISCARD int blob_put(const char *dir, struct str data, char name[BLOB_NAME],
                       struct err *err);
/* Reads and checks against the name; -ERR_CORRUPT when they differ. */
NODISCARD int blob_get(const char *dir, struct str name, struct buf *out, struct err *err);
/* Nothing refers to it any more. */
void blob_drop(const char *dir, struct str name);

#endif
