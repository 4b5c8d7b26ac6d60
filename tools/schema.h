/*
 * schema.h - arguments of a call against the tool's JSON schema, in words a model can act on.
 *
 * The subset that tool schemas use: type (name or list), properties, required,
 * additionalProperties false, enum, items, minItems, maxItems, minimum, maximum, anyOf.
 * Anything else in a schema is ignored.
 */
#ifndef TOOLS_SCHEMA_H
#define TOOLS_SCHEMA_H

#include "base/json.h"

/*
 * 0 when `args` fits. -ERR_PARSE with one sentence otherwise, such as
 *   bash: argument 'command' is required
 *   open: argument 'loc' must be an integer, got the string "12"
 */
NODISCARD int schema_check(const char *tool, const json_t *schema, const json_t *args,
                           struct err *err);
/*
 * The same from the texts: `schema` is a registry text, `args` what the model wrote. *out is
 * the parsed object, owned.
 */
NODISCARD int schema_parse_args(const char *tool, const char *schema, struct str args,
                                json_t **out, struct err *err);

#endif
