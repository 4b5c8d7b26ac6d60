/* id.h - identifiers: UUIDv7 text for sessions, turns, items and approvals (sorts by time),
 * unguessable call ids (whoever holds one may name the call). */
#ifndef AGENTD_ID_H
#define AGENTD_ID_H

#include <stdbool.h>

#include "base/str.h"

enum { ID_TEXT = 37 }; /* bytes with the NUL, for both kinds */

void id_new(char out[ID_TEXT]);      /* 0192f3c4-....-7...-....-............ */
void id_new_call(char out[ID_TEXT]); /* call_ and 26 random letters and digits */
bool id_valid(struct str s);         /* the shape of id_new() */

#endif
